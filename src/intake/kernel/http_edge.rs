//! Joins the connections in access logs with the kernel's sockets: which classes the connections of this node's HTTP
//! listeners serve, and the state of the paths to their viewers. Ports that a media server's own client list covers are
//! left to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::access_log::LoggedConnections;
use liveqos_core::connection::{AttributionTable, Class, Folds, Listener, PathFold, ResponseDelayTable, TcpReading};
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Fact, Name, Observation, PathView, Protocol, Rtt, SourceName, StreamKey, Timestamp};

use crate::platform::SelfMetrics;

/// Shared by the threads of the logs, which write, and the thread of the kernel, which reads.
#[derive(Clone)]
pub struct HttpEdge {
    key: [u64; 2],
    attributions: Arc<Mutex<AttributionTable>>,
    ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    quic_views: Arc<Mutex<QuicViews>>,
}

/// What lines report of QUIC connections of classes whose TCP connections the kernel reports.
type QuicViews = BTreeMap<(SourceName, Name), (Timestamp, PathView)>;

impl HttpEdge {
    /// Without any connection; `key` is the key of all logs.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            key,
            attributions: Arc::new(Mutex::new(AttributionTable::new(key))),
            ports: Arc::default(),
            quic_views: Arc::default(),
        }
    }

    /// The key of the hashes of connections and viewers.
    #[must_use]
    pub const fn key(&self) -> [u64; 2] {
        self.key
    }

    /// Takes the connections from a log's lines since the last call. `ports` are the configured ones; without any, the
    /// ports in the lines count. Returns the number of connection reports that did not fit.
    pub fn take(&self, source: &SourceName, now: Timestamp, ports: &[u16], fold: &mut LoggedConnections) -> u64 {
        let ports = if ports.is_empty() { fold.ports() } else { ports };
        if self.ports.load().get(source).map_or(&[][..], Vec::as_slice) != ports {
            let mut all = BTreeMap::clone(&self.ports.load());
            all.insert(SourceName::clone(source), ports.to_vec());
            self.ports.store(Arc::new(all));
        }
        let mut attributions = self.attributions.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = attributions.refused();
        attributions.apply(source, now, fold.take_reports());
        fold.set_joined(attributions.joined(source, now));
        let refused = attributions.refused() - refused;
        drop(attributions);
        let mut quic_views = self.quic_views.lock().unwrap_or_else(PoisonError::into_inner);
        quic_views.retain(|_, (reported, _)| now.since(*reported) <= MAX_QUIC_VIEW_AGE);
        quic_views.extend(
            fold.take_quic_views().into_iter().map(|(name, view)| ((SourceName::clone(source), name), (now, view))),
        );
        refused
    }

    /// Adds what lines report of further connections of the class to `view`; its packets count once.
    fn add_quic_view(&self, class: &Class, at: Timestamp, view: &mut PathView) {
        let mut quic_views = self.quic_views.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((reported, other)) = quic_views.get_mut(&(SourceName::clone(&class.source), class.name.clone()))
        else {
            return;
        };
        if at.since(*reported) <= MAX_QUIC_VIEW_AGE {
            view.add(other);
            (other.segments_sent, other.segments_lost) = (None, None);
        }
    }

    /// The ports of the logs' listeners, without those in `taken`.
    #[must_use]
    pub fn ports(&self, taken: &[u16]) -> Vec<u16> {
        let mut ports: Vec<u16> = self.ports.load().values().flatten().copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports.retain(|port| !taken.contains(port));
        ports
    }
}

/// The sockets of the logs' listeners, followed from dump to dump.
#[derive(Default)]
pub struct EdgeWatch {
    table: ResponseDelayTable,
    folds: Folds,
    published: Vec<u16>,
    untracked: u64,
    /// Whether logged connections are missing from the kernel's dumps.
    missing: MissingSockets,
}

#[derive(Default)]
enum MissingSockets {
    #[default]
    None,
    Since(Timestamp),
    Warned,
}

impl EdgeWatch {
    /// Evaluates one dump of the sockets on `ports`; at most one observation per class and log.
    pub fn look(
        &mut self,
        at: Timestamp,
        sockets: &[TcpReading],
        edge: &HttpEdge,
        (ports, meters): (&[u16], &SelfMetrics),
    ) -> Vec<Observation> {
        let mut attributions = edge.attributions.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.keep_listeners(ports);
        self.table.step(at, sockets, &mut attributions, &mut self.folds);
        meters.shed(ShedReason::TrackedSockets, self.table.untracked_total() - self.untracked);
        self.untracked = self.table.untracked_total();
        self.warn_of_missing_sockets(at, &attributions);
        let out = self.folds.iter().filter_map(|(index, fold)| {
            let class = attributions.class_of(*index)?;
            let mut view = view(class.protocol.unwrap_or(Protocol::Mixed), fold);
            edge.add_quic_view(class, at, &mut view);
            let (source, stream) = (class.source.clone(), StreamKey::of_session(class.name.clone()));
            Some(Observation { source, stream, at, fact: Fact::Path(Box::new(view)) })
        });
        let out = out.collect();
        drop(attributions);
        self.publish(meters);
        out
    }

    fn publish(&mut self, meters: &SelfMetrics) {
        let listeners = self.table.listeners();
        for port in self.published.iter().filter(|port| !listeners.contains_key(port)) {
            meters.remove_listener(*port);
        }
        self.published = listeners.keys().copied().collect();
        for (port, listener) in listeners {
            meters.set_listener(*port, listener, median(listener));
        }
    }

    fn warn_of_missing_sockets(&mut self, at: Timestamp, attributions: &AttributionTable) {
        let none = self.folds.is_empty() && !attributions.is_empty();
        self.missing = match std::mem::take(&mut self.missing) {
            MissingSockets::Warned => MissingSockets::Warned,
            _ if !none => MissingSockets::None,
            MissingSockets::None => MissingSockets::Since(at),
            MissingSockets::Since(since) if at.since(since) < WARN_AFTER => MissingSockets::Since(since),
            MissingSockets::Since(_) => {
                tracing::warn!(
                    "none of the {} connections in the access log is on this node's listeners. Behind a proxy or a load balancer the \
                     log contains the viewer's address and the kernel has the proxy's; latency and loss then come from the log alone",
                    attributions.len()
                );
                MissingSockets::Warned
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

/// A log reports its QUIC connections once a second.
const MAX_QUIC_VIEW_AGE: Duration = Duration::from_secs(2);
const WARN_AFTER: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use liveqos_core::access_log::{ClassRule, LogFold, LogFormat};

    use super::*;

    const LINE: &str = r#"{"t":1003.0,"rt":0.5,"st":200,"b":9,"u":"/hls/c1/7.ts","q":"d%3D2000%2Csid%3D%22a%22","ip":"10.0.0.9","rp":"4000","sp":"443","rtt_us":"9000"}"#;

    const QUIC: &str = r#""quic":"packets-sent=9,packets-lost=1,rtt-smoothed=30""#;

    fn fold(edge: &HttpEdge) -> LogFold {
        let (format, rule) = (LogFormat::json([]).expect("plain"), ClassRule::Path(Some("live".to_owned())));
        let mut fold = LogFold::new(format, rule, "log".into(), edge.key());
        fold.connections().keep_reports(edge.key());
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
    fn a_socket_is_attributed_to_the_class_of_its_line() {
        let (edge, mut watch) = (HttpEdge::new([1, 2]), EdgeWatch::default());
        let (registry, mut fold) = (prometheus::Registry::new(), fold(&edge));
        let meters = SelfMetrics::new(&registry).expect("instruments");
        let sockets = [socket("10.0.0.9:4000")];
        assert_eq!(edge.ports(&[]), [0_u16; 0]);
        assert!(watch.look(at(1_000), &sockets, &edge, (&[443], &meters)).is_empty());
        fold.line(LINE.as_bytes()).expect("a good line");
        assert_eq!(edge.take(&"log".into(), at(1_003), &[], fold.connections()), 0);
        assert_eq!((edge.ports(&[]), edge.ports(&[443])), (vec![443], vec![]), "a media server's port is left to it");
        let observations = watch.look(at(1_003), &sockets, &edge, (&[443], &meters));
        assert_eq!((observations.len(), observations[0].stream.as_str()), (1, "live/c1"));
        assert!(
            matches!(&observations[0].fact, Fact::Path(view) if view.protocol == Protocol::Hls && view.viewers == 1
            && view.latencies.max_millis() == Some(4))
        );
        // A second viewer of the class comes over QUIC: only the log reports it, and the kernel the first.
        let quic = LINE.replace("10.0.0.9", "10.0.0.8").replace("%22a", "%22b").replace("\"rtt_us\":\"9000\"", QUIC);
        edge.take(&"log".into(), at(1_003), &[], fold.connections());
        fold.line(LINE.as_bytes()).expect("a good line");
        fold.line(quic.as_bytes()).expect("a good line");
        assert!(fold.drain(at(1_004)).iter().all(|one| !matches!(one.fact, Fact::Path(_))));
        edge.take(&"log".into(), at(1_004), &[], fold.connections());
        let observations = watch.look(at(1_004), &sockets, &edge, (&[443], &meters));
        assert!(
            matches!(&observations[0].fact, Fact::Path(view) if view.viewers == 2 && observations.len() == 1),
            "{observations:?}"
        );
        let observations = watch.look(at(1_007), &sockets, &edge, (&[443], &meters));
        assert!(
            matches!(&observations[0].fact, Fact::Path(view) if view.viewers == 1),
            "the report has expired: {observations:?}"
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
    fn configured_ports_override_those_in_lines() {
        let edge = HttpEdge::new([1, 2]);
        let mut fold = fold(&edge);
        fold.line(LINE.as_bytes()).expect("a good line");
        edge.take(&"log".into(), at(1_003), &[80, 8080], fold.connections());
        assert_eq!(edge.ports(&[]), [80, 8080]);
    }

    #[test]
    fn a_log_from_behind_a_proxy_is_warned_about_once() {
        let (edge, mut watch) = (HttpEdge::new([1, 2]), EdgeWatch::default());
        let meters = SelfMetrics::new(&prometheus::Registry::new()).expect("instruments");
        let mut fold = fold(&edge);
        fold.line(LINE.as_bytes()).expect("a good line");
        edge.take(&"log".into(), at(1_003), &[], fold.connections());
        for second in [1_003, 1_030, 1_062] {
            watch.look(at(second), &[socket("10.9.9.9:4000")], &edge, (&[443], &meters));
            assert!(matches!(watch.missing, MissingSockets::Since(_)), "at {second}");
        }
        watch.look(at(1_063), &[], &edge, (&[443], &meters));
        assert!(matches!(watch.missing, MissingSockets::Warned));
    }
}
