//! What a line of an access log says of the connection that carried its answer. Decides how addresses, ports and
//! transport figures are read; refuses a figure that is not a number rather than the line.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::field::Field;
use super::format::Line;
use super::timestamp::seconds;
use crate::base::keyed_hash::sip_hash;

/// The connection of one line; what the log does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TransportFields {
    /// The other end. An IPv4-mapped IPv6 address is given as IPv4, as the kernel's word is.
    pub peer: Option<SocketAddr>,
    /// The listener's port.
    pub server_port: Option<u16>,
    /// Smoothed round trip when the line was written: `$tcpinfo_rtt` (µs), or of QUIC h2o's `rtt-smoothed` (ms).
    pub rtt: Option<Duration>,
    /// How long the node itself waited for the media: the sum of `$upstream_header_time`.
    pub waited: Option<Duration>,
    /// Whether it was QUIC (HTTP/3): then the kernel knows no connection.
    pub is_quic: bool,
    /// Totals of a QUIC connection.
    pub quic: Option<QuicTotals>,
}

/// Packets of one QUIC connection since it began, as RFC 9002 counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuicTotals {
    /// Sent, those sent again included.
    pub sent: u64,
    /// Declared lost.
    pub lost: u64,
    /// Of them acknowledged after all.
    pub late_acked: u64,
}

impl TransportFields {
    /// Reads a line; `None` when it says nothing of its connection.
    #[must_use]
    pub(crate) fn of(line: &Line<'_>) -> Option<Self> {
        let [port, rtt, quic] = [Field::Port, Field::Rtt, Field::Quic].map(|field| line.raw(field));
        if port.is_empty() && rtt.is_empty() && quic.is_empty() {
            return None;
        }
        let version = line.raw(Field::Version);
        let stats = (!quic.is_empty()).then(|| QuicStats::of(quic));
        let is_quic = stats.is_some() || [&b"h3"[..], b"hq", b"HTTP/3"].iter().any(|head| version.starts_with(head));
        let rtt = number::<u32>(rtt).map(|micros| Duration::from_micros(u64::from(micros)));
        Some(Self {
            peer: peer(line.raw(Field::Address), port),
            server_port: number(line.raw(Field::ServerPort)),
            rtt: rtt.or(stats.and_then(|stats| stats.rtt)).filter(|rtt| !rtt.is_zero()),
            waited: waited(line.raw(Field::Waited)),
            is_quic,
            quic: stats.and_then(|stats| stats.totals),
        })
    }
}

/// The keyed hash that stands for a connection. Neither address nor port is kept; `server_port` 0 where the log does
/// not tell it.
#[must_use]
pub(crate) fn connection_hash(key: [u64; 2], peer: SocketAddr, server_port: u16) -> u64 {
    let ports = (u32::from(peer.port()) << 16 | u32::from(server_port)).to_be_bytes();
    match peer.ip().to_canonical() {
        IpAddr::V4(address) => sip_hash(key, &[&address.octets(), &ports]),
        IpAddr::V6(address) => sip_hash(key, &[&address.octets(), &ports]),
    }
}

/// The figures of h2o's `http3.quic-stats` that are read.
#[derive(Clone, Copy, Default)]
struct QuicStats {
    rtt: Option<Duration>,
    totals: Option<QuicTotals>,
}

impl QuicStats {
    /// `packets-sent=900,packets-lost=4,late-acked=1,rtt-smoothed=31,…`; h2o 2.3 and later leave out what they do not
    /// count.
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
    /// Packets sent and lost since `earlier`, those acknowledged after all taken off; `None` when any total went back.
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

/// nginx parts the upstreams it asked one after another by `, ` or ` : ` and writes `-` for one that gave no answer.
fn waited(text: &[u8]) -> Option<Duration> {
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

    fn wire(line: &str) -> Option<TransportFields> {
        let format = LogFormat::json([]).expect("plain");
        TransportFields::of(&format.split(line.as_bytes()).expect("a line"))
    }

    #[test]
    fn what_nginx_tells_of_a_tcp_connection() {
        let told = r#"{"ip":"::ffff:10.0.0.9","rp":"40112","sp":"443","rtt_us":20417,"uh":"0.010, 0.020 : -","h3":""}"#;
        let read = wire(told).expect("told");
        assert_eq!(read.peer, Some("10.0.0.9:40112".parse().expect("an address")));
        assert_eq!((read.server_port, read.rtt), (Some(443), Some(Duration::from_micros(20_417))));
        assert_eq!((read.waited, read.is_quic, read.quic), (Some(Duration::from_millis(30)), false, None));
        for (line, says) in [
            (r#"{"ip":"10.0.0.9","u":"/x.ts"}"#, None),
            (r#"{"ip":"unix:","rp":"","rtt_us":}"#, None),
            (r#"{"ip":"unix:","rp":"0","rtt_us":12}"#, Some(None)),
            (r#"{"ip":"10.0.0.9","rp":"70000"}"#, Some(None)),
            (r#"{"ip":"10.0.0.9","rp":"-","rtt_us":0,"sp":80}"#, Some(None)),
        ] {
            assert_eq!(wire(line).map(|wire| wire.peer), says, "{line}");
        }
    }

    #[test]
    fn what_h2o_tells_of_a_quic_connection() {
        let stats =
            "packets-received=51,packets-sent=900,packets-lost=7,late-acked=2,rtt-minimum=20,rtt-smoothed=31,cwnd=9";
        let read = wire(&format!(r#"{{"ip":"10.0.0.9","rp":9,"quic":"{stats}"}}"#)).expect("told");
        assert_eq!((read.is_quic, read.rtt), (true, Some(Duration::from_millis(31))));
        let totals = QuicTotals { sent: 900, lost: 7, late_acked: 2 };
        assert_eq!(read.quic, Some(totals));
        let earlier = QuicTotals { sent: 800, lost: 4, late_acked: 2 };
        assert_eq!((totals.since(earlier), earlier.since(totals)), (Some((100, 3)), None));
        assert_eq!(wire(r#"{"rp":9,"ip":"1.1.1.1","h3":"h3"}"#).map(|wire| wire.is_quic), Some(true));
        assert_eq!(wire(r#"{"rp":9,"server_protocol":"HTTP/3.0"}"#).map(|wire| wire.is_quic), Some(true));
        assert_eq!(wire(r#"{"rp":9,"server_protocol":"HTTP/2.0"}"#).map(|wire| wire.is_quic), Some(false));
        let partial = wire(r#"{"quic":"packets-sent=9,nonsense,=,packets-lost=x"}"#).expect("told");
        assert_eq!(partial.quic, None, "one total alone gives no ratio");
    }

    #[test]
    fn a_mapped_address_is_the_same_connection_and_a_port_is_not() {
        let hash = |peer: &str, port| connection_hash([1, 2], peer.parse().expect("an address"), port);
        assert_eq!(hash("10.0.0.9:1000", 80), hash("[::ffff:10.0.0.9]:1000", 80));
        assert_ne!(hash("10.0.0.9:1000", 80), hash("10.0.0.9:1001", 80));
        assert_ne!(hash("10.0.0.9:1000", 80), hash("10.0.0.9:1000", 443));
        assert_ne!(hash("10.0.0.9:1000", 80), connection_hash([1, 3], "10.0.0.9:1000".parse().expect("it"), 80));
    }

    proptest! {
        #[test]
        fn any_text_is_taken(values in proptest::collection::vec("[ -~&&[^\"\\\\]]{0,40}", 7)) {
            let keys = ["ip", "rp", "sp", "rtt_us", "uh", "h3", "quic"];
            let pairs: Vec<String> = keys.iter().zip(&values).map(|(key, value)| format!("\"{key}\":\"{value}\"")).collect();
            if let Some(wire) = wire(&format!("{{{}}}", pairs.join(","))) {
                prop_assert!(wire.rtt.is_none_or(|rtt| !rtt.is_zero()));
                prop_assert!(wire.peer.is_none_or(|peer| peer.port() > 0));
            }
        }
    }
}
