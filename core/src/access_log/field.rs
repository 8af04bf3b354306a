//! The fields read from an access-log line, and the names that log formats give them. Unknown names are ignored.

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// When the response was finished, Unix seconds with fraction.
    Seconds,
    /// The same instant in ISO 8601.
    Iso,
    /// The same instant in the common log format.
    Local,
    /// Seconds from the first byte of the request until the last byte of the response was written to the socket.
    Duration,
    /// Status of the response.
    Status,
    /// Bytes of the response's body.
    Bytes,
    /// Path, without query.
    Path,
    /// Query string.
    Query,
    /// Value of the query argument `CMCD`, still percent-encoded.
    Cmcd,
    /// Request header CMCD-Session.
    CmcdSession,
    /// Request header CMCD-Request.
    CmcdRequest,
    /// Request header CMCD-Object.
    CmcdObject,
    /// Request header CMCD-Status.
    CmcdStatus,
    /// Body of the request: posted event reports.
    Body,
    /// User agent.
    UserAgent,
    /// Remote address of the connection: the viewer's, or a proxy's.
    Address,
    /// Addresses that proxies report (`X-Forwarded-For`).
    Forwarded,
    /// Region of the viewer, as the writer of the log names it.
    Region,
    /// Method, path with query, and protocol in one.
    RequestLine,
    /// Remote port of the connection.
    Port,
    /// Port of the listener.
    ServerPort,
    /// Smoothed round-trip time of the connection when the line was written, in microseconds (nginx `$tcpinfo_rtt`).
    Rtt,
    /// Seconds until each upstream began its response (nginx `$upstream_header_time`).
    UpstreamHeaderTime,
    /// HTTP version, or nginx's `$http3`.
    HttpVersion,
    /// Totals of a QUIC connection, as h2o's `http3.quic-stats` writes them.
    QuicStats,
}

impl Field {
    /// Number of fields.
    pub const COUNT: usize = Self::QuicStats as usize + 1;

    /// The field of this name: an nginx variable without `$`, or a key of `log_format liveqos`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::of(name.to_ascii_lowercase().as_bytes())
    }

    /// As [`Field::named`], for a key as it stands in a line.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"t" | b"ts" | b"msec" => Self::Seconds,
            b"rt" | b"request_time" => Self::Duration,
            b"st" | b"status" => Self::Status,
            b"b" | b"body_bytes_sent" => Self::Bytes,
            b"u" | b"uri" | b"path" | b"request_uri" => Self::Path,
            b"q" | b"arg_cmcd" | b"arg_CMCD" => Self::Cmcd,
            b"s" | b"http_cmcd_session" | b"cmcd_session" => Self::CmcdSession,
            b"r" | b"http_cmcd_request" | b"cmcd_request" => Self::CmcdRequest,
            b"o" | b"http_cmcd_object" | b"cmcd_object" => Self::CmcdObject,
            b"a" | b"http_cmcd_status" | b"cmcd_status" => Self::CmcdStatus,
            b"e" | b"request_body" | b"body" => Self::Body,
            b"ua" | b"http_user_agent" => Self::UserAgent,
            b"ip" | b"remote_addr" => Self::Address,
            b"xff" | b"http_x_forwarded_for" | b"proxy_add_x_forwarded_for" => Self::Forwarded,
            b"region" => Self::Region,
            b"time" | b"time_iso8601" => Self::Iso,
            b"time_local" => Self::Local,
            b"args" | b"query" | b"query_string" => Self::Query,
            b"request" => Self::RequestLine,
            b"rp" | b"remote_port" => Self::Port,
            b"sp" | b"server_port" => Self::ServerPort,
            b"rtt_us" | b"tcpinfo_rtt" => Self::Rtt,
            b"uh" | b"upstream_header_time" => Self::UpstreamHeaderTime,
            b"h3" | b"http3" | b"server_protocol" => Self::HttpVersion,
            b"quic" | b"quic_stats" => Self::QuicStats,
            _ => return None,
        })
    }
}
