//! One session in one window, as measured. Decides how its legs fold into the class's own figures. Nothing is filled
//! in: what was not measured is `None`, and every value has its provenance.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::{Provenance, Rtt};
use super::session::{Leg, Session};
use super::time::Window;
use crate::base::{LatencyHistogram, ViewerSketch};

/// A value and its provenance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured<T> {
    /// The value.
    pub value: T,
    /// Its provenance.
    pub source: Provenance,
}

impl<T> Measured<T> {
    /// Another value derived from this one, with the same provenance.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Measured<U> {
        Measured { value: of(self.value), source: self.source }
    }
}

/// A ratio kept as its two sums, so that sessions, windows and nodes add up exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The part, in the unit of the whole.
    pub part: f64,
    /// The whole; never zero where a share is given.
    pub whole: f64,
}

impl Share {
    /// The share, or `None` when the whole is zero.
    #[must_use]
    pub fn of(part: f64, whole: f64) -> Option<Self> {
        (whole > 0.0).then_some(Self { part, whole })
    }

    /// Part over whole, 0 to 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        (self.part / self.whole).clamp(0.0, 1.0)
    }
}

/// Delivery latencies of a leg's viewers at the window's end.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyReading {
    /// One entry per viewer and second, in milliseconds.
    pub latencies: Arc<LatencyHistogram>,
    /// Entries since the session began.
    pub total_count: u64,
    /// Their sum in seconds.
    pub total_seconds: f64,
}

impl LatencyReading {
    /// The latency in seconds that the share `quantile` of viewers does not exceed.
    #[must_use]
    pub fn quantile_seconds(&self, quantile: f64) -> Option<f64> {
        self.latencies.quantile_millis(quantile).map(|millis| millis as f64 / 1e3)
    }
}

/// One leg in one window.
#[derive(Clone, Debug, PartialEq)]
pub struct LegSample {
    /// Which leg.
    pub leg: Leg,
    /// Media payload, bits per second.
    pub bitrate: Option<Measured<f64>>,
    /// Distinct media frames per second.
    pub fps: Option<Measured<f64>>,
    /// Delivery latency over viewers.
    pub latency: Option<Measured<LatencyReading>>,
    /// Packets (or TCP segments) lost over expected, before repair.
    pub loss: Option<Measured<Share>>,
    /// Round trips between node and viewers, the newest in the window.
    pub rtt: Option<Measured<Rtt>>,
    /// Viewers at the window's end.
    pub viewers: Option<Measured<u32>>,
    /// Stalled seconds over exposure seconds, summed over viewers.
    pub stutter: Option<Measured<Share>>,
    /// Stalls that began in the window.
    pub stall_starts: Option<u32>,
    /// Viewers stalled for more than 5 % of the last minute over those that were exposed in it, as last reported in the
    /// window.
    pub stutter_viewers: Option<Measured<Share>>,
    /// Requests for media in the window, where a log reports them.
    pub requests: Option<u64>,
    /// Viewers that reported an empty buffer in the window.
    pub starved_viewers: Option<u32>,
    /// A sketch of the viewers present at some time of the window, to be merged with other nodes'.
    pub present: Option<Arc<ViewerSketch>>,
    /// Media payload bytes in the window.
    pub bytes: Option<u64>,
    /// Frames in the window.
    pub frames: Option<u64>,
    /// Time to first frame of viewers that started in the window.
    pub first_frames: Vec<Duration>,
    /// How long messages took that were answered in the window.
    pub messages: Option<LatencyHistogram>,
    /// Viewers that reported for themselves in the window, or whose connection was found.
    pub measured_viewers: u32,
}

impl LegSample {
    /// A leg of which nothing is known yet.
    #[must_use]
    pub fn empty(leg: Leg) -> Self {
        Self {
            leg,
            bitrate: None,
            fps: None,
            latency: None,
            loss: None,
            rtt: None,
            viewers: None,
            stutter: None,
            stall_starts: None,
            stutter_viewers: None,
            requests: None,
            starved_viewers: None,
            present: None,
            bytes: None,
            frames: None,
            first_frames: Vec::new(),
            messages: None,
            measured_viewers: 0,
        }
    }

    /// Stalls that began, per 100 s of exposure.
    #[must_use]
    pub fn stutter_per_100s(&self) -> Option<f64> {
        Some(f64::from(self.stall_starts?) * 100.0 / self.stutter?.value.whole)
    }

    /// The share of the leg's audience that its viewer-side values cover, 0 to 1.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        let viewers = self.viewers?.value;
        (viewers > 0).then(|| (f64::from(self.measured_viewers) / f64::from(viewers)).min(1.0))
    }
}

/// One session in one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The session.
    pub session: Arc<Session>,
    /// Its window.
    pub window: Window,
    /// Ingest first where known, then one leg per viewers' protocol, in a fixed order.
    pub legs: Vec<LegSample>,
    /// The encoder's declared frames per second, kept apart from the measured `fps`.
    pub declared_fps: Option<f64>,
    /// Whether the publisher was connected at the window's end, where a server reports it.
    pub publishing: Option<bool>,
    /// Whether a server's view may miss viewers.
    pub partial: bool,
    /// Interactions so far, as the platform counts them.
    pub interactions: Option<u64>,
}

impl Sample {
    /// Its number on the 5 s grid since the Unix epoch: the same on every node.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.window.end.nanos() / super::time::GRID.as_nanos() as u64
    }

    /// The leg from the publisher.
    #[must_use]
    pub fn ingest(&self) -> Option<&LegSample> {
        self.legs.iter().find(|leg| leg.leg == Leg::Ingest)
    }

    /// The legs to the viewers.
    pub fn egress(&self) -> impl Iterator<Item = &LegSample> {
        self.legs.iter().filter(|leg| leg.leg != Leg::Ingest)
    }

    /// Bits per second of the class: what the publisher sends.
    #[must_use]
    pub fn bitrate(&self) -> Option<Measured<f64>> {
        self.ingest()?.bitrate
    }

    /// Frames per second of the class: the publisher's where counted, else what viewers see.
    #[must_use]
    pub fn fps(&self) -> Option<Measured<f64>> {
        self.ingest().and_then(|leg| leg.fps).or_else(|| self.egress().find_map(|leg| leg.fps))
    }

    /// Viewers over all protocols.
    #[must_use]
    pub fn viewers(&self) -> Option<Measured<u32>> {
        self.egress().filter_map(|leg| leg.viewers).reduce(|all, leg| Measured {
            value: all.value.saturating_add(leg.value),
            source: weaker(all.source, leg.source),
        })
    }

    /// Stalled over exposure seconds of all viewers that reported.
    #[must_use]
    pub fn stutter(&self) -> Option<Measured<Share>> {
        self.pooled(|leg| leg.stutter)
    }

    /// Viewers that stuttered over viewers that were exposed, of the last minute.
    #[must_use]
    pub fn stutter_viewers(&self) -> Option<Measured<Share>> {
        self.pooled(|leg| leg.stutter_viewers)
    }

    /// Loss towards all viewers.
    #[must_use]
    pub fn loss(&self) -> Option<Measured<Share>> {
        self.pooled(|leg| leg.loss)
    }

    /// The worst leg's 95th percentile of delivery latency, in seconds.
    #[must_use]
    pub fn latency_p95_seconds(&self) -> Option<Measured<f64>> {
        self.egress()
            .filter_map(|leg| leg.latency.as_ref())
            .filter_map(|latency| {
                let value = latency.value.quantile_seconds(0.95)?;
                Some(Measured { value, source: latency.source })
            })
            .max_by(|a, b| a.value.total_cmp(&b.value))
    }

    /// The share of the class's audience that its viewer-side values cover, 0 to 1.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        let viewers = self.viewers()?.value;
        let measured: f64 =
            self.egress().map(|leg| f64::from(leg.measured_viewers.min(leg.viewers.map_or(0, |v| v.value)))).sum();
        (viewers > 0).then(|| (measured / f64::from(viewers)).min(1.0))
    }

    fn pooled(&self, of: impl Fn(&LegSample) -> Option<Measured<Share>>) -> Option<Measured<Share>> {
        self.egress().filter_map(of).reduce(|all, leg| Measured {
            value: Share { part: all.value.part + leg.value.part, whole: all.value.whole + leg.value.whole },
            source: weaker(all.source, leg.source),
        })
    }
}

/// Why a session closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The server, a hook or the platform reported its end.
    Ended,
    /// The publisher stayed away while viewers waited.
    PublisherLost,
    /// No source reported it for a long time.
    IdleTimeout,
    /// It was live when the daemon stopped, and no source reported it after the restart.
    EndedUnseen,
    /// The platform gave it another id.
    Renamed,
    /// The daemon stopped.
    Shutdown,
}

impl CloseReason {
    /// The attribute text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::PublisherLost => "publisher_lost",
            Self::IdleTimeout => "idle_timeout",
            Self::EndedUnseen => "ended_unseen",
            Self::Renamed => "renamed",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A session that opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The session.
    pub session: Arc<Session>,
    /// When its first byte was seen, or the publisher connected where a server reports that.
    pub at: super::time::Timestamp,
    /// The publisher's connection id on its server.
    pub connection_id: Option<super::session::Name>,
}

/// A session that closed.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// The session.
    pub session: Arc<Session>,
    /// When it was last alive.
    pub at: super::time::Timestamp,
    /// Why.
    pub reason: CloseReason,
}

/// The result of a tick: sessions that opened or closed, and samples when a window was cut.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Sessions that opened since the last tick.
    pub opened: Vec<Opened>,
    /// The window that was cut, where one was.
    pub window: Option<Window>,
    /// One sample per live session, in the order of session ids; empty between cuts.
    pub samples: Vec<Sample>,
    /// Sessions that closed since the last tick.
    pub closed: Vec<Closed>,
}

impl Batch {
    /// Whether nothing opened, closed or was cut.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.window.is_none() && self.closed.is_empty()
    }
}

/// The weaker provenance of two: a sum is no better than its worst part.
fn weaker(a: Provenance, b: Provenance) -> Provenance {
    let rank = |source| match source {
        Provenance::Player => 0,
        Provenance::Server => 1,
        Provenance::Probed => 2,
        Provenance::Estimated => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}
