//! One minute of a class as an open span. Decides how its samples fold into the span's figures: extremes and means,
//! ratios by their sums.

use std::sync::Arc;
use std::time::Duration;

use super::attributes::{of_figures, of_session, ratio, rounded};
use super::span::{Event, Parent, Span, SpanName, SpanRef, Value};
use crate::model::{
    Figures, GRID, Measured, Provenance, Reading, SEGMENT, Session, Share, Timestamp, Window, minute_of,
};

/// The event that carries one sample.
pub(super) const SAMPLE_EVENT: &str = "live.qos.sample";

/// A segment that still takes samples.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    minute: Timestamp,
    start: Timestamp,
    end: Timestamp,
    kept: Vec<Kept>,
    loss: Share,
    stutter: Share,
}

/// The figures of a sample in half the space: a minute of them is kept for every class.
#[derive(Clone, Copy, Debug)]
struct Kept {
    bitrate: f64,
    /// Frame rate, latency, loss, stutter, coverage.
    values: [f32; 5],
    viewers: u32,
    /// The cut, in milliseconds after the segment's start.
    cut: u32,
    /// Three bits per value: absent, or its provenance; then whether there is a coverage and whether it is partial.
    marks: u32,
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
    /// An empty segment that begins with `window`.
    #[must_use]
    pub(crate) fn new(window: Window) -> Self {
        Self {
            minute: minute_of(window),
            start: window.start,
            end: window.start,
            kept: Vec::with_capacity(SAMPLES),
            loss: Share::default(),
            stutter: Share::default(),
        }
    }

    /// The minute it covers.
    #[must_use]
    pub(crate) const fn minute(&self) -> Timestamp {
        self.minute
    }

    /// Whether the minute is full.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.end >= self.minute + SEGMENT
    }

    /// The span that it becomes.
    #[must_use]
    pub(crate) const fn this(&self) -> SpanRef {
        SpanRef { name: SpanName::TeachingConduct, ordinal: self.start.nanos() }
    }

    /// Adds a sample of its minute and gives the event that carries it.
    pub(crate) fn add(&mut self, reading: &Reading) -> Event {
        let figures = reading.figures;
        self.kept.push(Kept::of(&figures, self.start));
        self.end = reading.window.end;
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
    pub(crate) fn finish(self, session: &Arc<Session>, parent: Parent, last: bool) -> Span {
        let mut attributes = of_session(session);
        attributes
            .push(("live.segment.index", Value::Int((self.minute.nanos() / SEGMENT.as_nanos() as u64).cast_signed())));
        attributes.push(("live.segment.final", Value::Bool(last)));
        let (mut bitrate, mut fps) = (Spread::default(), Spread::default());
        let (mut latency_millis, mut viewers) = (Spread::default(), Spread::default());
        let mut events = Vec::with_capacity(self.kept.len());
        for figures in self.kept.iter().map(|kept| kept.figures(self.start)) {
            bitrate.add(figures.bitrate.map(|bitrate| bitrate.value));
            fps.add(figures.fps.map(|fps| f64::from(fps.value)));
            latency_millis.add(figures.latency_millis.map(|latency| f64::from(latency.value)));
            viewers.add(figures.viewers.map(|viewers| f64::from(viewers.value)));
            events.push(event_of(&figures));
        }
        bitrate.put(["live.bitrate", "live.bitrate.min", "live.bitrate.max"], 1.0, &mut attributes);
        fps.put(["live.fps", "live.fps.min", "live.fps.max"], 100.0, &mut attributes);
        latency_millis.put(["live.latency", "live.latency.min", "live.latency.max"], 1.0, &mut attributes);
        viewers.put(["live.viewer_count", "live.viewer_count.min", "live.viewer_count.max"], 1.0, &mut attributes);
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
            events,
        }
    }
}

fn event_of(figures: &Figures) -> Event {
    Event { name: SAMPLE_EVENT, at: figures.at, attributes: of_figures(figures) }
}

impl Kept {
    fn of(figures: &Figures, start: Timestamp) -> Self {
        fn put<T>(marks: &mut u32, value: Option<Measured<T>>) -> Option<T> {
            *marks = *marks << 3 | value.as_ref().map_or(0, |value| 1 + value.source as u32);
            value.map(|value| value.value)
        }
        let mut marks = u32::from(figures.partial) << 1 | u32::from(figures.coverage.is_some());
        let bitrate = put(&mut marks, figures.bitrate).unwrap_or_default();
        let viewers = put(&mut marks, figures.viewers).unwrap_or_default();
        let measured = [figures.fps, figures.latency_millis, figures.loss, figures.stutter];
        let [fps, latency, loss, stutter] = measured.map(|value| put(&mut marks, value).unwrap_or_default());
        let values = [fps, latency, loss, stutter, figures.coverage.unwrap_or_default()];
        let cut = u32::try_from(figures.at.since(start).as_millis()).unwrap_or(u32::MAX);
        Self { bitrate, values, viewers, cut, marks }
    }

    fn figures(&self, start: Timestamp) -> Figures {
        fn take<T>(marks: u32, at: u32, value: T) -> Option<Measured<T>> {
            let source = (marks >> (3 * at) & 7).checked_sub(1)?;
            Some(Measured { value, source: *Provenance::ALL.get(source as usize)? })
        }
        let [fps, latency, loss, stutter, coverage] = self.values;
        Figures {
            at: start + Duration::from_millis(u64::from(self.cut)),
            bitrate: take(self.marks, 5, self.bitrate),
            viewers: take(self.marks, 4, self.viewers),
            fps: take(self.marks, 3, fps),
            latency_millis: take(self.marks, 2, latency),
            loss: take(self.marks, 1, loss),
            stutter: take(self.marks, 0, stutter),
            coverage: (self.marks >> 18 & 1 == 1).then_some(coverage),
            partial: self.marks >> 19 & 1 == 1,
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn measured<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Measured<T>>> {
        let source = prop::sample::select(&Provenance::ALL[..]);
        prop::option::of((value, source).prop_map(|(value, source)| Measured { value, source }))
    }

    proptest! {
        #[test]
        fn kept_figures_read_back(
            (bitrate, viewers) in (measured(0.0..1e12_f64), measured(any::<u32>())),
            (fps, latency_millis, loss, stutter) in (measured(0.0..1e3_f32), measured(0.0..1e6_f32), measured(0.0..1.0_f32), measured(0.0..1.0_f32)),
            (coverage, partial, second) in (prop::option::of(0.0..1.0_f32), any::<bool>(), 0_u64..4_000_000),
        ) {
            let start = Timestamp::from_secs(1_700_000_000);
            let at = start + Duration::from_secs(second);
            let figures = Figures { at, bitrate, fps, latency_millis, loss, viewers, stutter, coverage, partial };
            prop_assert_eq!(Kept::of(&figures, start).figures(start), figures);
        }
    }
}
