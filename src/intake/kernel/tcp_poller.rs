//! Polls the kernel once a tick on a thread of its own, since a dump is a blocking call: joins the sockets to the
//! client lists of media servers and folds them per class. Where a client list is ambiguous, no socket is assigned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use liveqos_core::base::LatencyHistogram;
use liveqos_core::connection::{Candidate, Client, Folds, Join, PathFold, PathTable, Role, SessionIndex, TcpReading};
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Fact, Observation, PathView, SourceName, StreamKey, TICK, Timestamp};

use super::http_edge::{EdgeWatch, HttpEdge};
use super::sock_diag::{Dump, DumpError};
use super::watchlist::{ConnectionWatchlist, Entry};
use crate::intake::Observations;
use crate::platform::{SelfMetrics, clock};

/// Everything the thread needs.
pub(crate) struct TcpPoller {
    /// The connections to look for.
    pub watchlist: Arc<ArcSwap<ConnectionWatchlist>>,
    /// The ports on which each source serves viewers over TCP.
    pub ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    /// The connections that access logs contain.
    pub edge: HttpEdge,
    /// Receives the observations.
    pub out: Observations,
    /// The daemon's own metrics.
    pub meters: SelfMetrics,
}

/// State kept from poll to poll.
#[derive(Default)]
struct State {
    dump: Option<Dump>,
    sockets: Vec<TcpReading>,
    watches: BTreeMap<SourceName, Watch>,
    edge: EdgeWatch,
}

/// The sockets of one source.
#[derive(Default)]
struct Watch {
    table: PathTable,
    folds: Folds,
    candidates: Vec<Candidate>,
    untracked: u64,
    observed_at: Option<Timestamp>,
}

impl TcpPoller {
    /// Polls once a tick until `stop` is set.
    pub(crate) fn run(mut self, stop: &AtomicBool) {
        let mut state = State::default();
        let mut epoch = clock::Epoch::default();
        while !stop.load(Ordering::Relaxed) {
            let now = clock::now();
            let wait = (now.floor(TICK) + TICK).since(now);
            std::thread::sleep(wait + TICK_OFFSET);
            let watchlist = self.watchlist.load_full();
            if epoch.is_new() {
                state = State::default();
                continue;
            }
            let started = Instant::now();
            if let Err(error) = self.poll(&mut state, &watchlist) {
                tracing::warn!("{error}; the paths to viewers are unknown, next attempt in {} s", RETRY.as_secs());
                self.meters.shed(ShedReason::SockDiag, 1);
                state.dump = None;
                std::thread::sleep(RETRY);
            }
            std::thread::sleep(started.elapsed() * DUTY);
        }
    }

    fn poll(&mut self, state: &mut State, watchlist: &ConnectionWatchlist) -> Result<(), DumpError> {
        let State { dump, sockets, watches, edge } = state;
        watches.retain(|source, _| watchlist.entries.iter().any(|entry| entry.source == *source));
        let ports = self.ports.load();
        let mut asked: Vec<u16> = ports.values().flatten().copied().collect();
        let edge_ports = self.edge.ports(&asked);
        if watchlist.entries.is_empty() {
            asked.clear();
        }
        asked.extend(&edge_ports);
        asked.sort_unstable();
        asked.dedup();
        if asked.is_empty() {
            return Ok(());
        }
        let open = match dump {
            Some(open) => open,
            None => dump.insert(Dump::open()?),
        };
        let stats = open.read(&asked, sockets)?;
        self.meters.shed(ShedReason::Sockets, stats.cut);
        let at = clock::now();
        for (source, ports) in ports.iter() {
            let entries: Vec<&Entry> = watchlist.entries.iter().filter(|entry| entry.source == *source).collect();
            if !entries.is_empty() {
                let own: Vec<TcpReading> =
                    sockets.iter().filter(|socket| ports.contains(&socket.local.port())).copied().collect();
                let watch = watches.entry(source.clone()).or_default();
                let out = watch.observe(at, &own, &entries);
                self.meters.shed(ShedReason::TrackedSockets, watch.table.untracked_total() - watch.untracked);
                watch.untracked = watch.table.untracked_total();
                self.send(out);
            }
        }
        if !edge_ports.is_empty() {
            sockets.retain(|socket| edge_ports.contains(&socket.local.port()));
            let out = edge.look(at, sockets, &self.edge, (&edge_ports, &self.meters));
            self.send(out);
        }
        Ok(())
    }

    fn send(&self, out: Vec<Observation>) {
        if !out.is_empty() && self.out.try_send(out).is_err() {
            self.meters.shed(ShedReason::Observations, 1);
        }
    }
}

impl Watch {
    fn observe(&mut self, at: Timestamp, sockets: &[TcpReading], entries: &[&Entry]) -> Vec<Observation> {
        let interval = self.observed_at.replace(at).map_or(TICK, |last| at.since(last));
        let rate = |index: SessionIndex| entries.get(index.0 as usize)?.media_rate;
        self.table.step(at, sockets, rate, &mut self.folds);
        self.join(sockets, entries, interval);
        let mut out = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let session = SessionIndex(u32::try_from(index).unwrap_or(u32::MAX));
            let publisher_rtt = self.table.publisher_rtt(session);
            let fold = self.folds.get(&session);
            // Without viewers the path from the publisher is known as well.
            if fold.is_none() && publisher_rtt.is_none() {
                continue;
            }
            let view = PathView {
                protocol: entry.protocol(),
                viewers: fold.map_or(0, |fold| fold.viewers),
                latencies: fold.map_or_else(LatencyHistogram::default, |fold| fold.latencies().clone()),
                segments_sent: fold.and_then(|fold| fold.segments_sent),
                segments_lost: fold.and_then(|fold| fold.segments_lost),
                rtt: fold.and_then(PathFold::rtt),
                backlog_bytes: fold.map_or(0, |fold| fold.backlog_bytes),
                publisher_rtt,
            };
            out.push(observation(at, &entry.source, &entry.stream, view));
        }
        out
    }

    /// Assigns sockets to clients, anew each tick: an index is valid only within one watch list.
    fn join(&mut self, sockets: &[TcpReading], entries: &[&Entry], interval: Duration) {
        let mut clients = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let session = SessionIndex(u32::try_from(index).unwrap_or(u32::MAX));
            clients.extend(entry.clients.iter().map(|client| Client {
                address: client.address,
                started: client.started,
                role: if client.publisher { Role::Publisher } else { Role::Viewer },
                session,
            }));
        }
        self.table.candidates(sockets, &mut self.candidates);
        let listed_at = entries.iter().map(|entry| entry.listed_at).max().unwrap_or_default();
        self.table.assign(&Join::of(&clients, &self.candidates, listed_at, interval).assignments);
    }
}

fn observation(at: Timestamp, source: &SourceName, stream: &StreamKey, view: PathView) -> Observation {
    Observation { source: source.clone(), stream: stream.clone(), at, fact: Fact::Path(Box::new(view)) }
}

/// Delay after the engine's tick, so that a poll is folded before the next one.
const TICK_OFFSET: Duration = Duration::from_millis(100);
/// A poll may take this part of the thread's time: with very many connections it runs less often than once a tick.
const DUTY: u32 = 100;
const RETRY: Duration = Duration::from_secs(10);
