//! The vocabulary of sources: what one can report about a stream. A new variant is a design decision; lines and packets
//! are folded before they become an observation.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::descriptor::Descriptor;
use super::group::GroupView;
use super::session::{Protocol, StreamKey};
use super::time::Timestamp;
use crate::base::{LatencyHistogram, ViewerSketch};

/// The configured name of a source, as in labels and errors.
pub type SourceName = Arc<str>;

/// Most first-frame times kept in one window; viewers beyond it are counted all the same.
pub(crate) const MAX_FIRST_FRAMES: usize = 1_024;

/// Where a value comes from; every exported value has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Reported by the player itself.
    Player,
    /// Counted by the media server or its kernel.
    Server,
    /// Derived from other measurements by a model, as documented where that is done.
    Estimated,
    /// Measured by a synthetic viewer of liveqos.
    Probed,
}

impl Provenance {
    /// All of them, each at its own number.
    pub const ALL: [Self; 4] = [Self::Player, Self::Server, Self::Estimated, Self::Probed];

    /// The attribute text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Player => "player",
            Self::Server => "server",
            Self::Estimated => "estimated",
            Self::Probed => "probed",
        }
    }
}

/// What one source reported about one stream at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The configured source.
    pub source: SourceName,
    /// The stream.
    pub stream: StreamKey,
    /// When it was so: the instant the request was sent, or the body arrived.
    pub at: Timestamp,
    /// What was reported.
    pub fact: Fact,
}

/// The kinds of reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The platform's description of the class.
    Described(Box<Descriptor>),
    /// A media server's view of the stream; replaces the same source's earlier view.
    Server(Box<ServerView>),
    /// The transport's view of the connections to the viewers, folded over one tick.
    Path(Box<PathView>),
    /// What players reported since the source's last observation, folded.
    Players(Box<PlayerView>),
    /// The source no longer knows the stream.
    Gone,
}

/// A running total and the base it counts from. Two totals may be subtracted only while `base` stays the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Identity of the counter: changes with server instance, stream and connection.
    pub base: u64,
    /// Its value.
    pub value: u64,
}

/// One server's view of one stream. `None` where that server does not report a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerView {
    /// Whether a publisher is connected.
    pub publishing: Option<bool>,
    /// When the publisher connected.
    pub started: Option<Timestamp>,
    /// How the publisher sends.
    pub ingest_protocol: Option<Protocol>,
    /// Media bytes received from the publisher.
    pub ingest_bytes: Option<Total>,
    /// Media frames received from the publisher.
    pub ingest_frames: Option<Total>,
    /// Media bytes sent to all viewers.
    pub egress_bytes: Option<Total>,
    /// How often the server updates its byte totals; zero when each reading is current.
    pub bytes_step: Duration,
    /// How often the server updates its frame total; zero when each reading is current.
    pub frames_step: Duration,
    /// The encoder's declared frames per second; not a measurement.
    pub declared_fps: Option<f64>,
    /// Viewers by protocol, without publisher and relays.
    pub viewers: Option<Vec<(Protocol, u32)>>,
    /// Messages that the server dropped because a viewer was slow.
    pub dropped_messages: Option<Total>,
    /// The server's connections for this stream, for the kernel's join.
    pub clients: Vec<Client>,
    /// Whether the view may miss some of the stream's viewers (one worker of several, a truncated list).
    pub partial: bool,
}

/// One connection as the media server lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The remote address; these servers report no port.
    pub address: IpAddr,
    /// When it connected, as the server reports it.
    pub started: Option<Timestamp>,
    /// Whether it is the publisher.
    pub publisher: bool,
    /// How it is connected.
    pub protocol: Protocol,
}

/// Smoothed round trips between the node and its viewers (RFC 6298 for TCP, RFC 9002 for QUIC), over viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtt {
    /// The median.
    pub p50: Duration,
    /// The 95th percentile.
    pub p95: Duration,
}

impl Rtt {
    /// The percentiles of these round trips, by nearest rank; reorders them. `None` when there are none.
    #[must_use]
    pub fn of(rtts: &mut [Duration]) -> Option<Self> {
        let last = rtts.len().checked_sub(1)?;
        let mut ranked = |share: f64| {
            let rank = (share * rtts.len() as f64).ceil() as usize;
            *rtts.select_nth_unstable(rank.saturating_sub(1).min(last)).1
        };
        Some(Self { p50: ranked(0.5), p95: ranked(0.95) })
    }
}

/// The transport's view of the connections to one stream's viewers since its last observation: the kernel's
/// (`TCP_INFO`), or the access log's where the kernel does not see them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathView {
    /// By which protocol these viewers are served.
    pub protocol: Protocol,
    /// Connections attributed to the stream.
    pub viewers: u32,
    /// Delivery latency of each in milliseconds: the media queued for the viewer, as time, plus half the round trip.
    pub latencies: LatencyHistogram,
    /// Data segments (QUIC: packets) sent in this time; `None` where no connection reports them.
    pub segments_sent: Option<u64>,
    /// Of them retransmitted (QUIC: declared lost) and not proven spurious.
    pub segments_lost: Option<u64>,
    /// Round trips to the viewers.
    pub rtt: Option<Rtt>,
    /// Bytes queued in the node's kernel.
    pub backlog_bytes: u64,
    /// The publisher's round trip, where its connection was found.
    pub publisher_rtt: Option<Duration>,
}

impl PathView {
    /// Adds the view of further connections of the same stream and time. Percentiles do not add up: the round trips of
    /// the larger number of viewers stay.
    pub fn add(&mut self, other: &Self) {
        self.rtt = if self.rtt.is_none() || (other.rtt.is_some() && other.viewers > self.viewers) {
            other.rtt
        } else {
            self.rtt
        };
        self.viewers = self.viewers.saturating_add(other.viewers);
        self.latencies.add(&other.latencies);
        for (total, more) in
            [(&mut self.segments_sent, other.segments_sent), (&mut self.segments_lost, other.segments_lost)]
        {
            *total = match (*total, more) {
                (Some(total), Some(more)) => Some(total.saturating_add(more)),
                (total, more) => total.or(more),
            };
        }
        self.backlog_bytes = self.backlog_bytes.saturating_add(other.backlog_bytes);
        self.publisher_rtt = self.publisher_rtt.or(other.publisher_rtt);
    }
}

/// What players of one stream reported since the source's last observation. All sums are over viewers and cover only
/// this time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlayerView {
    /// How they are served.
    pub protocol: Option<Protocol>,
    /// Viewers that reported.
    pub viewers: u32,
    /// Time in playing or stalled state.
    pub exposure: Duration,
    /// Of it stalled or frozen.
    pub stalled: Duration,
    /// Stalls that began.
    pub stall_starts: u32,
    /// Requests for media, served or not; `None` where no log reports them.
    pub requests: Option<u64>,
    /// Viewers that reported an empty buffer (CMCD key `bs`, CTA-5004), each once per window of the 5 s grid, so that
    /// they add up over it.
    pub starved_viewers: Option<u32>,
    /// Viewers stalled for more than 5 % of the last 40 to 60 s, and viewers that were exposed in that time.
    pub stutter_viewers: Option<(u32, u32)>,
    /// A sketch of the present viewers, to be merged with other nodes'; where the fleet shares a key.
    pub present: Option<Arc<ViewerSketch>>,
    /// Frames shown or decoded.
    pub frames: Option<u64>,
    /// Media payload bytes received.
    pub bytes: Option<u64>,
    /// Packets expected (received and lost, before repair).
    pub packets_expected: Option<u64>,
    /// Packets lost, before repair.
    pub packets_lost: Option<u64>,
    /// Delivery latency of each viewer in milliseconds.
    pub latencies: Option<LatencyHistogram>,
    /// Time from request to first frame, of viewers that started.
    pub first_frames: Vec<Duration>,
    /// How long messages of viewers took (chat, answers, raised hands): from sending one to the platform's answer.
    pub messages: Option<LatencyHistogram>,
    /// Exposure and stalls by group, to find the cause of a fault; a viewer may be in one group of each kind. At most
    /// 32 named ones, those that stall most.
    pub groups: Vec<GroupView>,
}
