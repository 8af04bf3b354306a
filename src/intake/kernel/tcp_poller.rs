//! The ways to the viewers, by the kernel's word: once a tick one dump of sockets, joined to the roster, folded per
//! class. Runs on a thread of its own, since the kernel is asked in one blocking call; refuses to guess where client
//! lists are not clear.

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

/// What the thread needs.
pub(crate) struct TcpPoller {
    /// Whose connections to look for.
    pub roster: Arc<ArcSwap<ConnectionWatchlist>>,
    /// The ports on which each source serves viewers over TCP.
    pub ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    /// What access logs tell of connections.
    pub edge: HttpEdge,
    /// Where observations go.
    pub out: Observations,
    /// The daemon's own counters.
    pub meters: SelfMetrics,
}

/// All that is remembered from look to look.
#[derive(Default)]
struct Memory {
    dump: Option<Dump>,
    sockets: Vec<TcpReading>,
    watches: BTreeMap<SourceName, Watch>,
    edge: EdgeWatch,
}

/// One source's sockets.
#[derive(Default)]
struct Watch {
    table: PathTable,
    folds: Folds,
    candidates: Vec<Candidate>,
    untracked: u64,
    looked: Option<Timestamp>,
}

impl TcpPoller {
    /// Looks once a tick until `stop` turns true.
    pub(crate) fn run(mut self, stop: &AtomicBool) {
        let mut memory = Memory::default();
        let mut epoch = clock::Epoch::default();
        while !stop.load(Ordering::Relaxed) {
            let now = clock::now();
            let wait = (now.floor(TICK) + TICK).since(now);
            std::thread::sleep(wait + AFTER_BEAT);
            let roster = self.roster.load_full();
            if epoch.is_new() {
                memory = Memory::default();
                continue;
            }
            let started = Instant::now();
            if let Err(error) = self.look(&mut memory, &roster) {
                tracing::warn!("{error}; the viewers' paths are not seen, trying again in {} s", RETRY.as_secs());
                self.meters.shed(ShedReason::SockDiag, 1);
                memory.dump = None;
                std::thread::sleep(RETRY);
            }
            std::thread::sleep(started.elapsed() * DUTY);
        }
    }

    fn look(&mut self, memory: &mut Memory, roster: &ConnectionWatchlist) -> Result<(), DumpError> {
        let Memory { dump, sockets, watches, edge } = memory;
        watches.retain(|source, _| roster.entries.iter().any(|entry| entry.source == *source));
        let ports = self.ports.load();
        let mut asked: Vec<u16> = ports.values().flatten().copied().collect();
        let edge_ports = self.edge.ports(&asked);
        if roster.entries.is_empty() {
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
            let entries: Vec<&Entry> = roster.entries.iter().filter(|entry| entry.source == *source).collect();
            if !entries.is_empty() {
                let own: Vec<TcpReading> =
                    sockets.iter().filter(|socket| ports.contains(&socket.local.port())).copied().collect();
                let watch = watches.entry(source.clone()).or_default();
                let out = watch.look(at, &own, &entries);
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
    fn look(&mut self, at: Timestamp, sockets: &[TcpReading], entries: &[&Entry]) -> Vec<Observation> {
        let interval = self.looked.replace(at).map_or(TICK, |looked| at.since(looked));
        let rate = |index: SessionIndex| entries.get(index.0 as usize)?.media_rate;
        self.table.step(at, sockets, rate, &mut self.folds);
        self.join(sockets, entries, interval);
        let mut out = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let session = SessionIndex(u32::try_from(index).unwrap_or(u32::MAX));
            let publisher_rtt = self.table.publisher_rtt(session);
            let fold = self.folds.get(&session);
            // Before the first viewer the way from the publisher is known all the same.
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

    /// Sockets to clients, each tick anew: the roster may have moved on, and an index means nothing in the next one.
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

/// After the engine's tick, so that a look is folded before the next one.
const AFTER_BEAT: Duration = Duration::from_millis(100);
/// A look may take one part in so many of the thread's time: with very many connections it comes less often than each
/// tick.
const DUTY: u32 = 100;
const RETRY: Duration = Duration::from_secs(10);
