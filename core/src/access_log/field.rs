//! The fields of an access-log line that are read, and the names they go by. Decides what `nginx` calls what; a name
//! that is not known is left alone.

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// When the answer was done, Unix seconds with fraction.
    Seconds,
    /// The same by ISO 8601.
    Iso,
    /// The same as the common log format has it.
    Local,
    /// From the first byte of the request to the last of the answer handed to the kernel, in seconds.
    Duration,
    /// Status of the answer.
    Status,
    /// Bytes of the answer's body.
    Bytes,
    /// Path, without query.
    Path,
    /// Query.
    Query,
    /// Value of the query's `CMCD` alone, still encoded.
    Cmcd,
    /// Header CMCD-Session.
    Session,
    /// Header CMCD-Request.
    Request,
    /// Header CMCD-Object.
    Object,
    /// Header CMCD-Status.
    Told,
    /// Body of the request: event reports.
    Body,
    /// User agent.
    Agent,
    /// Other end of the connection: the viewer's address, or a proxy's.
    Address,
    /// What a proxy says of the addresses before it (`X-Forwarded-For`).
    Forwarded,
    /// Where the viewer is, as the log's writer names it.
    Region,
    /// Method, path with query and protocol in one.
    RequestLine,
    /// The viewer's port.
    Port,
    /// The port of the listener.
    ServerPort,
    /// Smoothed round trip of the connection as the kernel had it when the line was written, microseconds.
    Rtt,
    /// Until the upstream's answer began, in seconds, one value an upstream asked.
    Waited,
    /// HTTP version, or what nginx's `$http3` tells.
    Version,
    /// Totals of a QUIC connection as h2o's `http3.quic-stats` writes them.
    Quic,
}

impl Field {
    /// How many there are.
    pub const COUNT: usize = Self::Quic as usize + 1;

    /// The field of this name: an nginx variable without `$`, or a key of `log_format liveqos`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::of(name.to_ascii_lowercase().as_bytes())
    }

    /// As [`Field::named`], of a key as it stands in a line.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"t" | b"ts" | b"msec" => Self::Seconds,
            b"rt" | b"request_time" => Self::Duration,
            b"st" | b"status" => Self::Status,
            b"b" | b"body_bytes_sent" => Self::Bytes,
            b"u" | b"uri" | b"path" | b"request_uri" => Self::Path,
            b"q" | b"arg_cmcd" | b"arg_CMCD" => Self::Cmcd,
            b"s" | b"http_cmcd_session" | b"cmcd_session" => Self::Session,
            b"r" | b"http_cmcd_request" | b"cmcd_request" => Self::Request,
            b"o" | b"http_cmcd_object" | b"cmcd_object" => Self::Object,
            b"a" | b"http_cmcd_status" | b"cmcd_status" => Self::Told,
            b"e" | b"request_body" | b"body" => Self::Body,
            b"ua" | b"http_user_agent" => Self::Agent,
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
            b"uh" | b"upstream_header_time" => Self::Waited,
            b"h3" | b"http3" | b"server_protocol" => Self::Version,
            b"quic" | b"quic_stats" => Self::Quic,
            _ => return None,
        })
    }
}
