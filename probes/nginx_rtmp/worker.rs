//! What is remembered of one nginx worker between answers, and how the workers' parts of a stream become one view.
//! Decides when a counter begins anew. Relays are not viewers, and a copied stream is not a second ingest.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use liveqos_core::model::{Client, Protocol, ServerView, StreamKey, Timestamp, Total};

use super::stat::{Peer, Stat, StatClient, StatStream};
use crate::probe::base_of;

/// The latest answer of one worker process.
#[derive(Debug)]
pub(super) struct Worker {
    /// The round in which it last answered.
    pub(super) round: u64,
    /// When it started, as first derived; fixed while the process lives, so that it can be part of a counter's base.
    start: Timestamp,
    /// When it started, as derived from its latest answer.
    derived: Timestamp,
    uptime: Option<u64>,
    /// Its streams; several parts where several `<server>` blocks have the same application and stream.
    pub(super) streams: BTreeMap<StreamKey, Vec<Part>>,
}

/// How one answer is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    /// When the request was sent.
    pub(super) asked_at: Timestamp,
    /// The round it belongs to.
    pub(super) round: u64,
    /// Addresses that are not viewers.
    pub(super) not_viewers: &'a [IpAddr],
}

/// One worker's part of one stream.
#[derive(Debug)]
pub(super) struct Part {
    asked_at: Timestamp,
    publishing: bool,
    ingest: Option<Ingest>,
    egress: Option<Total>,
    dropped: Option<Total>,
    viewers: Option<BTreeMap<Protocol, u32>>,
    clients: Vec<Client>,
    cut: bool,
    totals: ClientTotals,
}

/// Where the stream comes from in this worker.
#[derive(Clone, Copy, Debug)]
struct Ingest {
    /// A publisher, rather than this server's pull from another one.
    direct: bool,
    started: Option<Timestamp>,
    bytes: Option<Total>,
    frame_rate: Option<f64>,
}

/// Sums over clients that come and go: they grow by what each present viewer's own counter grew, so a viewer who leaves
/// takes nothing away.
#[derive(Debug)]
struct ClientTotals {
    base: u64,
    dropped: u64,
    bytes: u64,
    seen: HashMap<u64, Seen>,
}

/// What was last seen of one client.
#[derive(Clone, Copy, Debug)]
struct Seen {
    age: Option<Duration>,
    started: Option<Timestamp>,
    dropped: u64,
    bytes: u64,
}

impl Worker {
    /// The worker after `stat`; continues its `earlier` answer where it is still the same process.
    pub(super) fn next(earlier: Option<Self>, stat: Stat, reading: Reading<'_>) -> Self {
        let derived = stat.uptime.map_or(Timestamp::default(), |uptime| reading.asked_at - Duration::from_secs(uptime));
        let earlier = earlier.filter(|earlier| {
            let shift = earlier.derived.since(derived).max(derived.since(earlier.derived));
            earlier.uptime <= stat.uptime && shift <= START_SLACK
        });
        let began = earlier.as_ref().map_or(derived, |earlier| earlier.start);
        let mut client_totals: HashMap<(StreamKey, usize), ClientTotals> = earlier
            .into_iter()
            .flat_map(|earlier| earlier.streams)
            .flat_map(|(key, parts)| {
                let place = move |(place, part): (usize, Part)| ((key.clone(), place), part.totals);
                parts.into_iter().enumerate().map(place)
            })
            .collect();
        let instance = format!("{}@{}", stat.pid, began.nanos());
        let mut streams: BTreeMap<StreamKey, Vec<Part>> = BTreeMap::new();
        for stream in stat.streams {
            let key = stream.key.clone();
            let parts = streams.entry(key.clone()).or_default();
            let name = format!("{instance}/{key}#{}", parts.len());
            let totals =
                client_totals.remove(&(key, parts.len())).unwrap_or_else(|| ClientTotals::new(&name, reading.asked_at));
            let mut part = Part::new(&name, &stream, totals, reading);
            part.cut |= stat.cut;
            parts.push(part);
        }
        Self { round: reading.round, start: began, derived, uptime: stat.uptime, streams }
    }

    /// Whether this process started clearly after `other`, so that it may have replaced it; workers that run side by
    /// side start together.
    pub(super) fn younger_than(&self, other: &Self) -> bool {
        self.derived.since(other.derived) > START_SLACK
    }
}

impl Part {
    fn new(name: &str, stream: &StatStream, mut totals: ClientTotals, reading: Reading<'_>) -> Self {
        totals.count(&stream.clients, reading);
        let listed = !stream.clients.is_empty();
        let watches = |client: &&StatClient| is_viewer(client, reading.not_viewers);
        let viewers = || stream.clients.iter().filter(watches);
        let source = stream
            .clients
            .iter()
            .filter(|client| client.publishing && client.peer != Peer::Copy)
            .min_by_key(|client| client.peer);
        let publisher = source.and_then(|client| client.id).map_or_else(String::new, |id| id.to_string());
        let base = base_of(&["nginx-rtmp", name, &publisher]);
        let total = |value: Option<u64>| value.map(|value| Total { base, value });
        let ingest = Ingest {
            direct: source.is_none_or(|client| client.peer == Peer::Direct),
            started: source.and_then(|client| totals.started(client)),
            bytes: total(stream.bytes_in),
            frame_rate: stream.frame_rate,
        };
        let own = |value: u64| Total { base: totals.base, value };
        let egress = if stream.clients.iter().any(|client| client.bytes_out.is_some()) {
            Some(own(totals.bytes))
        } else {
            let relayed = stream.clients.iter().any(|client| client.peer != Peer::Direct && !client.publishing);
            total(stream.bytes_out).filter(|_| !relayed)
        };
        Self {
            asked_at: reading.asked_at,
            publishing: stream.publishing || stream.clients.iter().any(|client| client.publishing),
            ingest: (source.is_some() || (stream.publishing && !listed)).then_some(ingest),
            egress,
            dropped: (listed && viewers().all(|client| client.dropped.is_some())).then(|| own(totals.dropped)),
            viewers: if listed {
                Some(by_protocol(viewers()))
            } else {
                let viewers = stream.nclients.map(|all| all.saturating_sub(u32::from(stream.publishing)));
                viewers.map(|viewers| BTreeMap::from([(Protocol::Mixed, viewers)]))
            },
            clients: stream.clients.iter().filter_map(|client| totals.connection(client)).collect(),
            cut: stream.cut,
            totals,
        }
    }
}

impl ClientTotals {
    fn new(name: &str, now: Timestamp) -> Self {
        Self {
            base: base_of(&["nginx-rtmp clients", name, &now.nanos().to_string()]),
            dropped: 0,
            bytes: 0,
            seen: HashMap::new(),
        }
    }

    fn count(&mut self, clients: &[StatClient], reading: Reading<'_>) {
        let before = std::mem::take(&mut self.seen);
        for client in clients {
            let Some(id) = client.id else { continue };
            let (dropped, bytes) = (client.dropped.unwrap_or(0), client.bytes_out.unwrap_or(0));
            let same =
                before.get(&id).filter(|seen| seen.age <= client.age && seen.dropped <= dropped && seen.bytes <= bytes);
            if is_viewer(client, reading.not_viewers) {
                self.dropped = self.dropped.saturating_add(dropped - same.map_or(0, |seen| seen.dropped));
                self.bytes = self.bytes.saturating_add(bytes - same.map_or(0, |seen| seen.bytes));
            }
            let started = match same {
                Some(seen) => seen.started,
                None => client.age.map(|age| reading.asked_at - age),
            };
            let age = client.age;
            self.seen.insert(id, Seen { age, started, dropped, bytes });
        }
    }

    fn started(&self, client: &StatClient) -> Option<Timestamp> {
        self.seen.get(&client.id?)?.started
    }

    /// The client, to attribute the kernel's connections; relays are not among them.
    fn connection(&self, client: &StatClient) -> Option<Client> {
        Some(Client {
            address: client.address.filter(|_| client.peer == Peer::Direct)?,
            started: self.started(client),
            publisher: client.publishing,
            protocol: protocol(client),
        })
    }
}

/// One view of a stream from all workers' `parts`. Ingest is taken from one of them only, since the others hold copies.
/// `partial` when more workers than these may serve it.
pub(super) fn merge(parts: &[&Part], partial: bool) -> ServerView {
    let sources = parts.iter().filter_map(|part| part.ingest);
    let ingest = sources.reduce(|best, other| if other.direct && !best.direct { other } else { best });
    let publishing = parts.iter().any(|part| part.publishing);
    let newest = parts.iter().map(|part| part.asked_at).max().unwrap_or_default();
    let oldest = parts.iter().map(|part| part.asked_at).min().unwrap_or_default();
    ServerView {
        publishing: (publishing || !partial).then_some(publishing),
        started: ingest.and_then(|ingest| ingest.started),
        ingest_protocol: publishing.then_some(Protocol::Rtmp),
        ingest_bytes: ingest.and_then(|ingest| ingest.bytes),
        ingest_frames: None,
        egress_bytes: sum(parts.iter().map(|part| part.egress)),
        bytes_step: newest.since(oldest),
        frames_step: Duration::ZERO,
        declared_fps: ingest.and_then(|ingest| ingest.frame_rate),
        viewers: add_viewers(parts),
        dropped_messages: sum(parts.iter().map(|part| part.dropped)),
        clients: parts.iter().flat_map(|part| part.clients.iter().cloned()).collect(),
        partial: partial || parts.iter().any(|part| part.cut),
    }
}

fn add_viewers(parts: &[&Part]) -> Option<Vec<(Protocol, u32)>> {
    let mut all: BTreeMap<Protocol, u32> = BTreeMap::new();
    for part in parts {
        for (protocol, viewers) in part.viewers.as_ref()? {
            let count = all.entry(*protocol).or_default();
            *count = count.saturating_add(*viewers);
        }
    }
    Some(all.into_iter().filter(|(_, viewers)| *viewers > 0).collect())
}

/// The sum of totals, on a base that changes with each of theirs; `None` when one of them is missing.
fn sum(totals: impl Iterator<Item = Option<Total>>) -> Option<Total> {
    let totals: Vec<Total> = totals.collect::<Option<_>>()?;
    let base = match totals.as_slice() {
        [] => return None,
        [only] => only.base,
        several => {
            let bases: Vec<String> = several.iter().map(|total| total.base.to_string()).collect();
            base_of(&bases.iter().map(String::as_str).collect::<Vec<_>>())
        }
    };
    let value = totals.iter().fold(0_u64, |sum, total| sum.saturating_add(total.value));
    Some(Total { base, value })
}

fn by_protocol<'a>(viewers: impl Iterator<Item = &'a StatClient>) -> BTreeMap<Protocol, u32> {
    let mut counts = BTreeMap::new();
    for viewer in viewers {
        *counts.entry(protocol(viewer)).or_insert(0) += 1;
    }
    counts
}

fn is_viewer(client: &StatClient, not_viewers: &[IpAddr]) -> bool {
    let excluded = client.address.is_some_and(|address| not_viewers.contains(&address));
    !client.publishing && client.peer == Peer::Direct && !excluded
}

fn protocol(client: &StatClient) -> Protocol {
    if client.http_flv { Protocol::HttpFlv } else { Protocol::Rtmp }
}

/// How far the start derived from `<uptime>` (whole seconds) may move before it counts as another process.
const START_SLACK: Duration = Duration::from_secs(3);
