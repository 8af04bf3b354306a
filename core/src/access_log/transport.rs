//! The transport fields of a line: addresses, ports, round-trip time and QUIC totals. A malformed figure is absent; it
//! does not reject the line.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::field::Field;
use super::line::Line;
use super::timestamp::seconds;

/// The connection of one line; what the line does not contain is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TransportFields {
    /// The remote end. An IPv4-mapped IPv6 address is given as IPv4, as the kernel's socket dump gives it.
    pub peer: Option<SocketAddr>,
    /// The listener's port.
    pub server_port: Option<u16>,
    /// Smoothed round-trip time when the line was written: nginx `$tcpinfo_rtt` (µs), or h2o's `rtt-smoothed` (ms) for
    /// QUIC.
    pub rtt: Option<Duration>,
    /// How long the node itself waited for the media: the sum of nginx's `$upstream_header_time`.
    pub upstream_time: Option<Duration>,
    /// Whether the connection is QUIC (HTTP/3): the kernel has no TCP socket for it then.
    pub is_quic: bool,
    /// Totals of the QUIC connection.
    pub quic: Option<QuicTotals>,
}

/// Packets of one QUIC connection since it began, as RFC 9002 counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuicTotals {
    /// Sent, retransmissions included.
    pub sent: u64,
    /// Declared lost.
    pub lost: u64,
    /// Declared lost and acknowledged after all.
    pub late_acked: u64,
}

impl TransportFields {
    /// Reads a line; `None` when it contains nothing of its connection.
    #[must_use]
    pub(crate) fn of(line: &Line<'_>) -> Option<Self> {
        let [port, rtt, quic] = [Field::Port, Field::Rtt, Field::QuicStats].map(|field| line.raw(field));
        if port.is_empty() && rtt.is_empty() && quic.is_empty() {
            return None;
        }
        let version = line.raw(Field::HttpVersion);
        let stats = (!quic.is_empty()).then(|| QuicStats::of(quic));
        let is_quic = stats.is_some() || [&b"h3"[..], b"hq", b"HTTP/3"].iter().any(|head| version.starts_with(head));
        let rtt = number::<u32>(rtt).map(|micros| Duration::from_micros(u64::from(micros)));
        Some(Self {
            peer: peer(line.raw(Field::Address), port),
            server_port: number(line.raw(Field::ServerPort)),
            rtt: rtt.or(stats.and_then(|stats| stats.rtt)).filter(|rtt| !rtt.is_zero()),
            upstream_time: upstream_time(line.raw(Field::UpstreamHeaderTime)),
            is_quic,
            quic: stats.and_then(|stats| stats.totals),
        })
    }
}

/// The figures read from h2o's `http3.quic-stats`.
#[derive(Clone, Copy, Default)]
struct QuicStats {
    rtt: Option<Duration>,
    totals: Option<QuicTotals>,
}

impl QuicStats {
    /// `packets-sent=900,packets-lost=4,late-acked=1,rtt-smoothed=31,…`; h2o 2.3 and later omit what they do not count.
    fn of(text: &[u8]) -> Self {
        let mut totals = QuicTotals::default();
        let (mut sent, mut lost, mut rtt) = (false, false, None);
        for pair in text.split(|byte| *byte == b',') {
            let Some(at) = pair.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let value = number::<u64>(&pair[at + 1..]);
            match (&pair[..at], value) {
                (b"packets-sent", Some(value)) => (sent, totals.sent) = (true, value),
                (b"packets-lost", Some(value)) => (lost, totals.lost) = (true, value),
                (b"late-acked", Some(value)) => totals.late_acked = value,
                (b"rtt-smoothed", Some(value)) => rtt = Some(Duration::from_millis(value)),
                _ => {}
            }
        }
        Self { rtt, totals: (sent && lost).then_some(totals) }
    }
}

impl QuicTotals {
    /// Packets sent and lost since `earlier`, less those acknowledged after all; `None` when a total went back.
    #[must_use]
    pub(crate) fn since(self, earlier: Self) -> Option<(u64, u64)> {
        let sent = self.sent.checked_sub(earlier.sent)?;
        let lost = self.lost.checked_sub(earlier.lost)?;
        let late = self.late_acked.checked_sub(earlier.late_acked)?;
        Some((sent, lost.saturating_sub(late).min(sent)))
    }
}

fn peer(address: &[u8], port: &[u8]) -> Option<SocketAddr> {
    let address: IpAddr = std::str::from_utf8(address).ok()?.parse().ok()?;
    let port = number::<u16>(port).filter(|port| *port > 0)?;
    Some(SocketAddr::new(address.to_canonical(), port))
}

/// nginx separates the upstreams that it asked in turn by `, ` or ` : ` and writes `-` for one without a response.
fn upstream_time(text: &[u8]) -> Option<Duration> {
    let parts = text.split(|byte| matches!(byte, b',' | b':' | b' ')).filter_map(seconds);
    parts.reduce(Duration::saturating_add)
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access_log::format::LogFormat;

    fn fields(line: &str) -> Option<TransportFields> {
        let format = LogFormat::json([]).expect("plain");
        TransportFields::of(&format.split(line.as_bytes()).expect("a line"))
    }

    #[test]
    fn nginx_fields_of_a_tcp_connection() {
        let line = r#"{"ip":"::ffff:10.0.0.9","rp":"40112","sp":"443","rtt_us":20417,"uh":"0.010, 0.020 : -","h3":""}"#;
        let read = fields(line).expect("fields");
        assert_eq!(read.peer, Some("10.0.0.9:40112".parse().expect("an address")));
        assert_eq!((read.server_port, read.rtt), (Some(443), Some(Duration::from_micros(20_417))));
        assert_eq!((read.upstream_time, read.is_quic, read.quic), (Some(Duration::from_millis(30)), false, None));
        for (line, peer) in [
            (r#"{"ip":"10.0.0.9","u":"/x.ts"}"#, None),
            (r#"{"ip":"unix:","rp":"","rtt_us":}"#, None),
            (r#"{"ip":"unix:","rp":"0","rtt_us":12}"#, Some(None)),
            (r#"{"ip":"10.0.0.9","rp":"70000"}"#, Some(None)),
            (r#"{"ip":"10.0.0.9","rp":"-","rtt_us":0,"sp":80}"#, Some(None)),
        ] {
            assert_eq!(fields(line).map(|fields| fields.peer), peer, "{line}");
        }
    }

    #[test]
    fn h2o_fields_of_a_quic_connection() {
        let stats =
            "packets-received=51,packets-sent=900,packets-lost=7,late-acked=2,rtt-minimum=20,rtt-smoothed=31,cwnd=9";
        let read = fields(&format!(r#"{{"ip":"10.0.0.9","rp":9,"quic":"{stats}"}}"#)).expect("fields");
        assert_eq!((read.is_quic, read.rtt), (true, Some(Duration::from_millis(31))));
        let totals = QuicTotals { sent: 900, lost: 7, late_acked: 2 };
        assert_eq!(read.quic, Some(totals));
        let earlier = QuicTotals { sent: 800, lost: 4, late_acked: 2 };
        assert_eq!((totals.since(earlier), earlier.since(totals)), (Some((100, 3)), None));
        assert_eq!(fields(r#"{"rp":9,"ip":"1.1.1.1","h3":"h3"}"#).map(|fields| fields.is_quic), Some(true));
        assert_eq!(fields(r#"{"rp":9,"server_protocol":"HTTP/3.0"}"#).map(|fields| fields.is_quic), Some(true));
        assert_eq!(fields(r#"{"rp":9,"server_protocol":"HTTP/2.0"}"#).map(|fields| fields.is_quic), Some(false));
        let partial = fields(r#"{"quic":"packets-sent=9,nonsense,=,packets-lost=x"}"#).expect("fields");
        assert_eq!(partial.quic, None, "one total alone gives no ratio");
    }

    proptest! {
        #[test]
        fn any_text_is_taken(values in proptest::collection::vec("[ -~&&[^\"\\\\]]{0,40}", 7)) {
            let keys = ["ip", "rp", "sp", "rtt_us", "uh", "h3", "quic"];
            let pairs: Vec<String> = keys.iter().zip(&values).map(|(key, value)| format!("\"{key}\":\"{value}\"")).collect();
            if let Some(fields) = fields(&format!("{{{}}}", pairs.join(","))) {
                prop_assert!(fields.rtt.is_none_or(|rtt| !rtt.is_zero()));
                prop_assert!(fields.peer.is_none_or(|peer| peer.port() > 0));
            }
        }
    }
}
