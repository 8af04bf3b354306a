//! The whole vocabulary of probes: what a source may say of a stream. Decides nothing; a new variant is a design
//! decision, and a line or a packet is folded before it becomes one of these.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::descriptor::Descriptor;
use super::group::GroupView;
use super::session::{Protocol, StreamKey};
use super::time::Timestamp;
use crate::base::{LatencyHistogram, ViewerSketch};

/// The configured name of a source, as it stands in labels and errors.
pub type SourceName = Arc<str>;

/// Most first-frame times kept in one window; a join storm beyond it is counted by its viewers all the same.
pub(crate) const MAX_FIRST_FRAMES: usize = 1_024;

/// Where a value comes from; every exported value carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// The player itself told.
    Player,
    /// The media server or its kernel counted it.
    Server,
    /// Derived from other measurements by a model, as documented where it is done.
    Estimated,
    /// A synthetic viewer of ours measured it.
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

/// What one source said of one stream at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Which configured source speaks.
    pub source: SourceName,
    /// Which stream it speaks of.
    pub stream: StreamKey,
    /// When it was so: the instant the answer was asked for, or the body arrived.
    pub at: Timestamp,
    /// What it said.
    pub fact: Fact,
}

/// The things that can be said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The platform told who the class is.
    Described(Box<Descriptor>),
    /// A media server's view of the stream; replaces the same source's earlier view.
    Server(Box<ServerView>),
    /// What the kernel tells of the connections to the viewers, folded over one tick.
    Path(Box<PathView>),
    /// What players told, folded over the time since the source's last word.
    Players(Box<PlayerView>),
    /// The source no longer knows the stream.
    Gone,
}

/// A running total and the base it counts from. Two totals may be differenced only while `base` stays the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Identity of the counter: changes with server instance, stream and connection.
    pub base: u64,
    /// Its value.
    pub value: u64,
}

/// One server's view of one stream. `None` where that server does not tell.
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
    /// How often the server refreshes its byte totals; zero when each read is current.
    pub bytes_step: Duration,
    /// How often the server refreshes its frame total; zero when each read is current.
    pub frames_step: Duration,
    /// The encoder's declared frames per second: a claim, never a measurement.
    pub declared_fps: Option<f64>,
    /// Viewers by protocol, publisher and relays left out.
    pub viewers: Option<Vec<(Protocol, u32)>>,
    /// Messages the server threw away because a viewer was slow.
    pub dropped_messages: Option<Total>,
    /// The server's connections for this stream, for the kernel's join.
    pub clients: Vec<Client>,
    /// Whether the view may miss some of the stream's viewers (one worker of several, a list cut short).
    pub partial: bool,
}

/// One connection as the media server lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The remote address; servers of this kind tell no port.
    pub address: IpAddr,
    /// When it connected, by the server's word.
    pub started: Option<Timestamp>,
    /// Whether it is the publisher.
    pub publisher: bool,
    /// How it is connected.
    pub protocol: Protocol,
}

/// Round trips between the node and its viewers as its transport smooths them (RFC 6298, RFC 9002), over viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtt {
    /// Of the viewer in the middle.
    pub p50: Duration,
    /// That 95 % of viewers do not exceed.
    pub p95: Duration,
}

impl Rtt {
    /// Of these round trips, by nearest rank; puts them in another order. `None` when there are none.
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

/// The word of the node's transport on the viewers' connections of one stream since its last word: the kernel's
/// (TCP_INFO; see `tcp_path`, `answer_path`), or the access log's where the kernel does not see them (see
/// `claim_fold`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathView {
    /// By which protocol these viewers are served.
    pub protocol: Protocol,
    /// Connections joined to the stream.
    pub viewers: u32,
    /// Delivery latency of each in milliseconds: what waits for the viewer, in time, plus half the round trip.
    pub latencies: LatencyHistogram,
    /// Data segments (QUIC: packets) sent in this time; `None` where no connection told.
    pub segments_sent: Option<u64>,
    /// Of them sent again (QUIC: declared lost) and not proven needless.
    pub segments_lost: Option<u64>,
    /// Round trips to the viewers.
    pub rtt: Option<Rtt>,
    /// Bytes waiting in the node's kernel.
    pub backlog_bytes: u64,
    /// The publisher's round trip, where its connection was found.
    pub publisher_rtt: Option<Duration>,
}

impl PathView {
    /// Adds the word on further connections of the same stream and time. Percentiles do not add: the round trip stays
    /// that of more viewers.
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

/// What players of one stream told since the source's last fold. All sums are over viewers and only of this time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlayerView {
    /// How they are served.
    pub protocol: Option<Protocol>,
    /// Viewers that told something.
    pub viewers: u32,
    /// Time in playing or stalled state.
    pub exposure: Duration,
    /// Of it stalled or frozen.
    pub stalled: Duration,
    /// Stalls that began.
    pub stall_starts: u32,
    /// Requests for media, served or not; `None` where no log tells.
    pub requests: Option<u64>,
    /// Viewers that told that their buffer had run dry (CMCD `bs`), each once in a window of the 5 s grid, so that they
    /// add up over it.
    pub starved_viewers: Option<u32>,
    /// Viewers stalled for more than 5 % of the last 40 to 60 s, of those that were exposed in it.
    pub stutter_viewers: Option<(u32, u32)>,
    /// Who is present, to be joined with other nodes; where there is a key of the fleet.
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
    /// Time from asking to the first frame, of viewers that started.
    pub first_frames: Vec<Duration>,
    /// How long messages of viewers (chat, answers, raised hands) took: from sending one to the platform's answer to
    /// it.
    pub messages: Option<LatencyHistogram>,
    /// The same watching and stalling by group, for the cause of a fault; a viewer may be in a group of each kind. At
    /// most [`super::group::MAX_GROUPS`], those that stall most.
    pub groups: Vec<GroupView>,
}
