//! Between the access logs and the kernel: which classes the connections of this node's HTTP listeners serve, and how the way to their
//! viewers is. Decides which ports are looked at; refuses those that a media server's own client list speaks for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::answer_path::{AnswerTable, Listener};
use liveqos_core::claim::Claims;
use liveqos_core::claim_fold::ClaimFold;
use liveqos_core::observation::{Fact, Observation, PathView, Rtt, SourceName};
use liveqos_core::session::{Protocol, StreamKey};
use liveqos_core::tcp::TcpReading;
use liveqos_core::tcp_fold::PathFold;
use liveqos_core::tcp_path::Folds;
use liveqos_core::time::Timestamp;

use crate::meters::Meters;

/// What the logs' threads write and the paths' thread reads.
#[derive(Clone)]
pub struct Edge {
    key: [u64; 2],
    claims: Arc<Mutex<Claims>>,
    ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
}

impl Edge {
    /// No connection yet; `key` is that of all logs.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Self { key, claims: Arc::new(Mutex::new(Claims::new(key))), ports: Arc::default() }
    }

    /// The key of all hashes of connections and viewers.
    #[must_use]
    pub const fn key(&self) -> [u64; 2] {
        self.key
    }

    /// Takes what a log's lines told of connections since the last time. `ports` are the configured ones; where there are none, those that
    /// the lines name count. Gives the words that found no room.
    pub fn take(&self, source: &SourceName, now: Timestamp, ports: &[u16], fold: &mut ClaimFold) -> u64 {
        let ports = if ports.is_empty() { fold.ports() } else { ports };
        if self.ports.load().get(source).map_or(&[][..], Vec::as_slice) != ports {
            let mut all = BTreeMap::clone(&self.ports.load());
            all.insert(SourceName::clone(source), ports.to_vec());
            self.ports.store(Arc::new(all));
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = claims.refused();
        claims.take(source, now, fold.words());
        claims.refused() - refused
    }

    /// Whether the kernel speaks for this class of a log, so that the log's own figures of its connections would count twice.
    #[must_use]
    pub fn is_joined(&self, source: &SourceName, class: &str, now: Timestamp) -> bool {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).is_joined(source, class, now)
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
    table: AnswerTable,
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
        edge: &Edge,
        (ports, meters): (&[u16], &Meters),
    ) -> Vec<Observation> {
        let mut claims = edge.claims.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.keep_listeners(ports);
        self.table.step(at, sockets, &mut claims, &mut self.folds);
        meters.shed("tracked_sockets", self.table.untracked_total() - self.untracked);
        self.untracked = self.table.untracked_total();
        self.warn_of_strangers(at, &claims);
        let out = self.folds.iter().filter_map(|(index, fold)| {
            let class = claims.class_of(*index)?;
            let view = view(class.protocol.unwrap_or(Protocol::Mixed), fold);
            let (source, stream) = (class.source.clone(), StreamKey::of_session(class.name.clone()));
            Some(Observation { source, stream, at, fact: Fact::Path(Box::new(view)) })
        });
        let out = out.collect();
        drop(claims);
        self.show(meters);
        out
    }

    fn show(&mut self, meters: &Meters) {
        let listeners = self.table.listeners();
        for port in self.shown.iter().filter(|port| !listeners.contains_key(port)) {
            meters.forget_listener(*port);
        }
        self.shown = listeners.keys().copied().collect();
        for (port, listener) in listeners {
            meters.tell_listener(*port, listener, median(listener));
        }
    }

    fn warn_of_strangers(&mut self, at: Timestamp, claims: &Claims) {
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

const STRANGE_AFTER: Duration = Duration::from_mins(1);
