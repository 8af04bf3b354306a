//! Between the access logs and the kernel: which classes the connections of this node's HTTP listeners serve, and how
//! the way to their viewers is. Decides which ports are looked at; refuses those that a media server's own client list
//! speaks for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::access_log::LoggedConnections;
use liveqos_core::connection::{AttributionTable, Class, Folds, Listener, PathFold, ResponseDelayTable, TcpReading};
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Fact, Name, Observation, PathView, Protocol, Rtt, SourceName, StreamKey, Timestamp};

use crate::platform::SelfMetrics;

/// What the logs' threads write and the paths' thread reads.
#[derive(Clone)]
pub struct HttpEdge {
    key: [u64; 2],
    claims: Arc<Mutex<AttributionTable>>,
    ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    beside: Arc<Mutex<Beside>>,
}

/// The lines' word on QUIC connections of classes for whose TCP connections the kernel speaks.
type Beside = BTreeMap<(SourceName, Name), (Timestamp, PathView)>;

impl HttpEdge {
    /// No connection yet; `key` is that of all logs.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            key,
            claims: Arc::new(Mutex::new(AttributionTable::new(key))),
            ports: Arc::default(),
            beside: Arc::default(),
        }
    }

    /// The key of all hashes of connections and viewers.
    #[must_use]
    pub const fn key(&self) -> [u64; 2] {
        self.key
    }

    /// Takes what a log's lines told of connections since the last time. `ports` are the configured ones; where there
    /// are none, those that the lines name count. Gives the words that found no room.
    pub fn take(&self, source: &SourceName, now: Timestamp, ports: &[u16], fold: &mut LoggedConnections) -> u64 {
        let ports = if ports.is_empty() { fold.ports() } else { ports };
        if self.ports.load().get(source).map_or(&[][..], Vec::as_slice) != ports {
            let mut all = BTreeMap::clone(&self.ports.load());
            all.insert(SourceName::clone(source), ports.to_vec());
            self.ports.store(Arc::new(all));
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = claims.refused();
        claims.take(source, now, fold.words());
        fold.set_joined(claims.joined(source, now));
        let refused = claims.refused() - refused;
        drop(claims);
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        beside.retain(|_, (told, _)| now.since(*told) <= BESIDE_SPEAKS);
        beside.extend(fold.beside().into_iter().map(|(name, view)| ((SourceName::clone(source), name), (now, view))));
        refused
    }

    /// Adds to `view` what lines told of further connections of its class; its packets count once.
    fn add_beside(&self, class: &Class, at: Timestamp, view: &mut PathView) {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((told, other)) = beside.get_mut(&(SourceName::clone(&class.source), class.name.clone())) else {
            return;
        };
        if at.since(*told) <= BESIDE_SPEAKS {
            view.add(other);
            (other.segments_sent, other.segments_lost) = (None, None);
        }
    }

    /// The ports of the logs' listeners without those of `taken`.
    #[must_use]
    pub fn ports(&self, taken: &[u16]) -> Vec<u16> {
        let mut ports: Vec<u16> = self.ports.load().values().flatten().copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports.retain(|port| !taken.contains(port));
        ports
    }
}

/// The sockets of the logs' listeners, from dump to dump.
#[derive(Default)]
pub struct EdgeWatch {
    table: ResponseDelayTable,
    folds: Folds,
    shown: Vec<u16>,
    untracked: u64,
    /// Since when lines claim connections and no dump has one of them; `None` when it has been said.
    strange: Strange,
}

#[derive(Default)]
enum Strange {
    #[default]
    No,
    Since(Timestamp),
    Said,
}

impl EdgeWatch {
    /// One look at the sockets on `ports`; at most one observation a class and log.
    pub fn look(
        &mut self,
        at: Timestamp,
        sockets: &[TcpReading],
        edge: &HttpEdge,
        (ports, meters): (&[u16], &SelfMetrics),
    ) -> Vec<Observation> {
        let mut claims = edge.claims.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.keep_listeners(ports);
        self.table.step(at, sockets, &mut claims, &mut self.folds);
        meters.shed(ShedReason::TrackedSockets, self.table.untracked_total() - self.untracked);
        self.untracked = self.table.untracked_total();
        self.warn_of_strangers(at, &claims);
        let out = self.folds.iter().filter_map(|(index, fold)| {
            let class = claims.class_of(*index)?;
            let mut view = view(class.protocol.unwrap_or(Protocol::Mixed), fold);
            edge.add_beside(class, at, &mut view);
            let (source, stream) = (class.source.clone(), StreamKey::of_session(class.name.clone()));
            Some(Observation { source, stream, at, fact: Fact::Path(Box::new(view)) })
        });
        let out = out.collect();
        drop(claims);
        self.show(meters);
        out
    }

    fn show(&mut self, meters: &SelfMetrics) {
        let listeners = self.table.listeners();
        for port in self.shown.iter().filter(|port| !listeners.contains_key(port)) {
            meters.remove_listener(*port);
        }
        self.shown = listeners.keys().copied().collect();
        for (port, listener) in listeners {
            meters.set_listener(*port, listener, median(listener));
        }
    }

    fn warn_of_strangers(&mut self, at: Timestamp, claims: &AttributionTable) {
        let none = self.folds.is_empty() && !claims.is_empty();
        self.strange = match std::mem::take(&mut self.strange) {
            Strange::Said => Strange::Said,
            _ if !none => Strange::No,
            Strange::No => Strange::Since(at),
            Strange::Since(since) if at.since(since) < STRANGE_AFTER => Strange::Since(since),
            Strange::Since(_) => {
                tracing::warn!(
                    "none of the {} connections in the access log is on this node's listeners; behind a proxy or a load balancer the \
                     log names the viewer's address and the kernel knows the proxy's: latency and loss are then those of the log alone",
                    claims.len()
                );
                Strange::Said
            }
        };
    }
}

fn median(listener: &Listener) -> Option<Duration> {
    Rtt::of(&mut listener.rtts.clone()).map(|rtt| rtt.p50)
}

fn view(protocol: Protocol, fold: &PathFold) -> PathView {
    PathView {
        protocol,
        viewers: fold.viewers,
        latencies: fold.latencies().clone(),
        segments_sent: fold.segments_sent,
        segments_lost: fold.segments_lost,
        rtt: fold.rtt(),
        backlog_bytes: fold.backlog_bytes,
        publisher_rtt: None,
    }
}

/// A log tells of its QUIC connections once a second.
const BESIDE_SPEAKS: Duration = Duration::from_secs(2);
const STRANGE_AFTER: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use liveqos_core::access_log::{ClassRule, LogFold, LogFormat};

    use super::*;

    const LINE: &str = r#"{"t":1003.0,"rt":0.5,"st":200,"b":9,"u":"/hls/c1/7.ts","q":"d%3D2000%2Csid%3D%22a%22","ip":"10.0.0.9","rp":"4000","sp":"443","rtt_us":"9000"}"#;

    const QUIC: &str = r#""quic":"packets-sent=9,packets-lost=1,rtt-smoothed=30""#;

    fn fold(edge: &HttpEdge) -> LogFold {
        let (format, rule) = (LogFormat::json([]).expect("plain"), ClassRule::Path(Some("live".to_owned())));
        let mut fold = LogFold::new(format, rule, "log".into(), edge.key());
        fold.claims().keep_words(edge.key());
        fold
    }

    fn socket(peer: &str) -> TcpReading {
        let mut socket =
            TcpReading::bare("10.0.0.1:443".parse().expect("an address"), peer.parse().expect("an address"), 1);
        (socket.rtt, socket.notsent_bytes) = (Some(Duration::from_millis(8)), Some(0));
        socket
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_secs(second)
    }

    #[test]
    fn a_line_makes_its_socket_speak_for_its_class() {
        let (edge, mut watch) = (HttpEdge::new([1, 2]), EdgeWatch::default());
        let (registry, mut fold) = (prometheus::Registry::new(), fold(&edge));
        let meters = SelfMetrics::new(&registry).expect("instruments");
        let sockets = [socket("10.0.0.9:4000")];
        assert_eq!(edge.ports(&[]), [0_u16; 0]);
        assert!(watch.look(at(1_000), &sockets, &edge, (&[443], &meters)).is_empty());
        fold.line(LINE.as_bytes()).expect("a good line");
        assert_eq!(edge.take(&"log".into(), at(1_003), &[], fold.claims()), 0);
        assert_eq!((edge.ports(&[]), edge.ports(&[443])), (vec![443], vec![]), "a media server's port is its own");
        let told = watch.look(at(1_003), &sockets, &edge, (&[443], &meters));
        assert_eq!((told.len(), told[0].stream.as_str()), (1, "live/c1"));
        assert!(matches!(&told[0].fact, Fact::Path(view) if view.protocol == Protocol::Hls && view.viewers == 1
            && view.latencies.max_millis() == Some(4)));
        // A second viewer of the class comes over QUIC: the log alone speaks for it, the kernel for the first.
        let quic = LINE.replace("10.0.0.9", "10.0.0.8").replace("%22a", "%22b").replace("\"rtt_us\":\"9000\"", QUIC);
        edge.take(&"log".into(), at(1_003), &[], fold.claims());
        fold.line(LINE.as_bytes()).expect("a good line");
        fold.line(quic.as_bytes()).expect("a good line");
        assert!(fold.drain(at(1_004)).iter().all(|told| !matches!(told.fact, Fact::Path(_))));
        edge.take(&"log".into(), at(1_004), &[], fold.claims());
        let told = watch.look(at(1_004), &sockets, &edge, (&[443], &meters));
        assert!(matches!(&told[0].fact, Fact::Path(view) if view.viewers == 2 && told.len() == 1), "{told:?}");
        let told = watch.look(at(1_007), &sockets, &edge, (&[443], &meters));
        assert!(
            matches!(&told[0].fact, Fact::Path(view) if view.viewers == 1),
            "it speaks for the present only: {told:?}"
        );
        let series = |name: &str| {
            let families = registry.gather();
            families.iter().find(|family| family.name() == name).map_or(0, |family| family.get_metric().len())
        };
        assert_eq!((series("liveqos_listener_connections"), series("liveqos_listener_rtt_seconds")), (2, 1));
        watch.look(at(1_004), &[], &edge, (&[], &meters));
        assert_eq!((series("liveqos_listener_connections"), series("liveqos_listener_rtt_seconds")), (0, 0));
    }

    #[test]
    fn configured_ports_stand_before_those_of_the_lines() {
        let edge = HttpEdge::new([1, 2]);
        let mut fold = fold(&edge);
        fold.line(LINE.as_bytes()).expect("a good line");
        edge.take(&"log".into(), at(1_003), &[80, 8080], fold.claims());
        assert_eq!(edge.ports(&[]), [80, 8080]);
    }

    #[test]
    fn a_log_from_behind_a_proxy_is_told_of_once() {
        let (edge, mut watch) = (HttpEdge::new([1, 2]), EdgeWatch::default());
        let meters = SelfMetrics::new(&prometheus::Registry::new()).expect("instruments");
        let mut fold = fold(&edge);
        fold.line(LINE.as_bytes()).expect("a good line");
        edge.take(&"log".into(), at(1_003), &[], fold.claims());
        for second in [1_003, 1_030, 1_062] {
            watch.look(at(second), &[socket("10.9.9.9:4000")], &edge, (&[443], &meters));
            assert!(matches!(watch.strange, Strange::Since(_)), "at {second}");
        }
        watch.look(at(1_063), &[], &edge, (&[443], &meters));
        assert!(matches!(watch.strange, Strange::Said));
    }
}
