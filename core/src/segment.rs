//! One minute of a class as a span in the making. Decides how its samples fold into the span's figures (extremes and means, ratios by
//! their sums); refuses samples of another minute.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attributes::{Figures, of_session, ratio, rounded};
use crate::sample::{Sample, Share};
use crate::session::Session;
use crate::span::{Event, Parent, Span, SpanName, SpanRef, Value};
use crate::time::{GRID, Timestamp, Window};

/// Length of a segment: twelve samples, inside every limit of span events.
pub const SEGMENT: Duration = Duration::from_mins(1);

/// The event that carries one sample.
pub const SAMPLE_EVENT: &str = "live.qos.sample";

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

/// A segment that still takes samples.
#[derive(Clone, Debug)]
pub struct Segment {
    minute: Timestamp,
    start: Timestamp,
    end: Timestamp,
    figures: Vec<Figures>,
    bitrate: Spread,
    fps: Spread,
    latency_millis: Spread,
    viewers: Spread,
    loss: Share,
    stutter: Share,
}

/// Smallest, largest and mean of a value over the samples that had it.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    min: f64,
    max: f64,
    sum: f64,
    count: u32,
}

impl Segment {
    /// The minute that a window falls into.
    #[must_use]
    pub fn minute_of(window: Window) -> Timestamp {
        (window.end - Duration::from_nanos(1)).floor(SEGMENT)
    }

    /// An empty segment that begins with `window`.
    #[must_use]
    pub fn new(window: Window) -> Self {
        Self {
            minute: Self::minute_of(window),
            start: window.start,
            end: window.start,
            figures: Vec::with_capacity(SAMPLES),
            bitrate: Spread::default(),
            fps: Spread::default(),
            latency_millis: Spread::default(),
            viewers: Spread::default(),
            loss: Share::default(),
            stutter: Share::default(),
        }
    }

    /// The minute it is of.
    #[must_use]
    pub const fn minute(&self) -> Timestamp {
        self.minute
    }

    /// Whether the minute is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.end >= self.minute + SEGMENT
    }

    /// Which span it will be.
    #[must_use]
    pub const fn this(&self) -> SpanRef {
        SpanRef { name: SpanName::TeachingConduct, ordinal: self.start.nanos() }
    }

    /// Takes a sample of its minute and gives the event that carries it.
    pub fn add(&mut self, reading: &Reading) -> Event {
        let figures = reading.figures;
        self.figures.push(figures);
        self.end = reading.window.end;
        self.bitrate.add(figures.bitrate.map(|bitrate| bitrate.value));
        self.fps.add(figures.fps.map(|fps| f64::from(fps.value)));
        self.latency_millis.add(figures.latency_millis.map(|latency| f64::from(latency.value)));
        self.viewers.add(figures.viewers.map(|viewers| f64::from(viewers.value)));
        for (sum, more) in [(&mut self.loss, reading.loss), (&mut self.stutter, reading.stutter)] {
            if let Some(more) = more {
                sum.part += more.part;
                sum.whole += more.whole;
            }
        }
        event_of(&figures)
    }

    /// The finished span, under `parent`; `last` when the class ends with it.
    #[must_use]
    pub fn finish(self, session: &Arc<Session>, parent: Parent, last: bool) -> Span {
        let mut attributes = of_session(session);
        attributes
            .push(("live.segment.index", Value::Int((self.minute.nanos() / SEGMENT.as_nanos() as u64).cast_signed())));
        attributes.push(("live.segment.final", Value::Bool(last)));
        self.bitrate.put(["live.bitrate", "live.bitrate.min", "live.bitrate.max"], 1.0, &mut attributes);
        self.fps.put(["live.fps", "live.fps.min", "live.fps.max"], 100.0, &mut attributes);
        self.latency_millis.put(["live.latency", "live.latency.min", "live.latency.max"], 1.0, &mut attributes);
        self.viewers.put(["live.viewer_count", "live.viewer_count.min", "live.viewer_count.max"], 1.0, &mut attributes);
        if self.loss.whole > 0.0 {
            attributes.push(("live.packet_loss", ratio(self.loss.ratio())));
        }
        if self.stutter.whole > 0.0 {
            attributes.push(("live.stutter_ratio", ratio(self.stutter.ratio())));
            attributes.push(("live.stutter.seconds", Value::Float(rounded(self.stutter.part, 1e3))));
            attributes.push(("live.watch.seconds", Value::Float(rounded(self.stutter.whole, 1e3))));
        }
        Span {
            session: Arc::clone(session),
            this: self.this(),
            parent,
            start: self.start,
            end: self.end,
            error: None,
            attributes,
            events: self.figures.iter().map(event_of).collect(),
        }
    }
}

fn event_of(figures: &Figures) -> Event {
    Event { name: SAMPLE_EVENT, at: figures.at, attributes: figures.attributes() }
}

impl Spread {
    fn add(&mut self, value: Option<f64>) {
        let Some(value) = value else {
            return;
        };
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = if self.count == 0 { value } else { self.max.max(value) };
        self.sum += value;
        self.count += 1;
    }

    /// Mean, smallest and largest under their keys, where there was any value.
    fn put(&self, keys: [&'static str; 3], parts: f64, out: &mut Vec<(&'static str, Value)>) {
        if self.count > 0 {
            let values = [self.sum / f64::from(self.count), self.min, self.max];
            out.extend(keys.into_iter().zip(values.map(|value| Value::Float(rounded(value, parts)))));
        }
    }
}

/// Samples in a full minute.
const SAMPLES: usize = (SEGMENT.as_secs() / GRID.as_secs()) as usize;
