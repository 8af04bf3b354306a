//! What the trace of a class keeps of a sample, and so what outlives the daemon. Decides which minute a window belongs
//! to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sample::{Measured, Sample, Share};
use super::time::{Timestamp, Window};

/// What a segment keeps of a sample, and so what must outlive the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The sample's window.
    pub window: Window,
    /// Its figures.
    pub figures: Figures,
    /// Packets lost over expected.
    pub loss: Option<Share>,
    /// Stalled over exposure seconds.
    pub stutter: Option<Share>,
    /// Interactions so far.
    pub interactions: Option<u64>,
}

impl Reading {
    /// What a segment keeps of `sample`.
    #[must_use]
    pub fn of(sample: &Sample) -> Self {
        Self {
            window: sample.window,
            figures: Figures::of(sample),
            loss: sample.loss().map(|loss| loss.value),
            stutter: sample.stutter().map(|stutter| stutter.value),
            interactions: sample.interactions,
        }
    }
}

/// The class's figures in one window. Single precision keeps a minute of them small and still carries the six digits
/// that are exported.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The cut.
    pub at: Timestamp,
    /// Media of the publisher, bits per second.
    pub bitrate: Option<Measured<f64>>,
    /// Frames per second.
    pub fps: Option<Measured<f32>>,
    /// 95th percentile of delivery latency, milliseconds.
    pub latency_millis: Option<Measured<f32>>,
    /// Lost over expected, 0 to 1.
    pub loss: Option<Measured<f32>>,
    /// Viewers.
    pub viewers: Option<Measured<u32>>,
    /// Stalled over exposure time, 0 to 1.
    pub stutter: Option<Measured<f32>>,
    /// The share of the audience that the viewer-side values cover, 0 to 1.
    pub coverage: Option<f32>,
    /// Whether a server's view may miss viewers.
    pub partial: bool,
}

impl Figures {
    /// The figures of a sample.
    #[must_use]
    pub fn of(sample: &Sample) -> Self {
        let share = |share: Measured<Share>| share.map(|share| share.ratio() as f32);
        Self {
            at: sample.window.end,
            bitrate: sample.bitrate(),
            fps: sample.fps().map(|fps| fps.map(|fps| fps as f32)),
            latency_millis: sample.latency_p95_seconds().map(|latency| latency.map(|seconds| (seconds * 1e3) as f32)),
            loss: sample.loss().map(share),
            viewers: sample.viewers(),
            stutter: sample.stutter().map(share),
            coverage: sample.coverage().map(|coverage| coverage as f32),
            partial: sample.partial,
        }
    }
}

/// The minute that a window falls into.
#[must_use]
pub(crate) fn minute_of(window: Window) -> Timestamp {
    (window.end - Duration::from_nanos(1)).floor(SEGMENT)
}

/// Length of a segment: twelve samples, well inside the limits that backends set on span events.
pub(crate) const SEGMENT: Duration = Duration::from_mins(1);
