//! The node's running sums, such that the nodes of a fleet add up exactly. Decides what of a sample counts under which
//! labels. There are no averages: ratios are two counters, latencies a histogram.

use std::collections::BTreeMap;

use crate::model::{Leg, LegSample, Objectives, Sample, Scenario};

/// Bounds of the latency histogram in seconds; the alert's 0.2 is one of them.
pub(super) const LATENCY_BOUNDS: &[f64] = &[0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0];

/// Bounds of the first-frame histogram in seconds; the objective's 2 is one of them.
pub(super) const FIRST_FRAME_BOUNDS: &[f64] = &[0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0];

/// Bounds of the message latency histogram in seconds; the objective's 0.1 is one of them.
pub(super) const MESSAGE_BOUNDS: &[f64] = &[0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5];

/// The labels of the sums: few values, so that there are few series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FleetKey {
    /// The leg; its text is the `stream_type` label.
    pub leg: Leg,
    /// What the classes are for.
    pub scenario: Scenario,
}

/// A classic histogram: one count per bound and one beyond, not cumulative.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// Upper bounds, ascending.
    pub bounds: &'static [f64],
    /// Counts, one more than bounds.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: f64,
}

impl Buckets {
    /// Empty buckets of these bounds.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts `value` `count` times.
    pub fn record(&mut self, value: f64, count: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at] = self.counts[at].saturating_add(count);
        self.sum += value * count as f64;
    }
}

/// Running sums under one key. `None` until the first report: a leg whose viewers report nothing has no loss, not zero
/// loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetTotals {
    /// Viewer-seconds in playing or stalled state.
    pub watch_seconds: Option<f64>,
    /// Of them stalled.
    pub stutter_seconds: Option<f64>,
    /// Delivery latency of viewers, in seconds.
    pub latency: Option<Buckets>,
    /// Time to first frame, in seconds.
    pub first_frame: Option<Buckets>,
    /// From sending a message to the platform's answer, in seconds.
    pub message_latency: Option<Buckets>,
    /// Packets (or segments) expected.
    pub packets: Option<u64>,
    /// Of them lost, before repair.
    pub packets_lost: Option<u64>,
    /// Media bytes.
    pub bytes: Option<u64>,
    /// Media frames.
    pub frames: Option<u64>,
}

/// All sums of the node. Sessions come and go; these only grow.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    totals: BTreeMap<FleetKey, FleetTotals>,
    breaches: [u64; 3],
}

/// The objectives that a sample can break: values of the label `kind`.
pub const BREACHES: [&str; 3] = ["latency", "stutter", "loss"];

impl Fleet {
    /// Adds a window's samples.
    pub fn take(&mut self, samples: &[Sample], objectives: &Objectives) {
        for sample in samples {
            for leg in &sample.legs {
                let key = FleetKey { leg: leg.leg, scenario: sample.session.scenario };
                self.totals.entry(key).or_default().add(leg);
            }
            let broken = [
                sample.latency_p95_seconds().is_some_and(|latency| latency.value > objectives.latency_seconds),
                sample.stutter().is_some_and(|stutter| stutter.value.ratio() > objectives.stutter_ratio),
                sample.loss().is_some_and(|loss| loss.value.ratio() > objectives.loss_ratio),
            ];
            for (count, broken) in self.breaches.iter_mut().zip(broken) {
                *count += u64::from(broken);
            }
        }
    }

    /// The sums by key, in a fixed order.
    pub fn totals(&self) -> impl Iterator<Item = (&FleetKey, &FleetTotals)> {
        self.totals.iter()
    }

    /// Samples that broke an objective, in the order of [`BREACHES`].
    #[must_use]
    pub const fn breaches(&self) -> [u64; 3] {
        self.breaches
    }
}

impl FleetTotals {
    fn add(&mut self, leg: &LegSample) {
        if let Some(stutter) = leg.stutter {
            *self.watch_seconds.get_or_insert(0.0) += stutter.value.whole;
            *self.stutter_seconds.get_or_insert(0.0) += stutter.value.part;
        }
        count(&mut self.packets, leg.loss.map(|loss| loss.value.whole as u64));
        count(&mut self.packets_lost, leg.loss.map(|loss| loss.value.part as u64));
        count(&mut self.bytes, leg.bytes);
        count(&mut self.frames, leg.frames);
        if let Some(latency) = &leg.latency {
            let buckets = self.latency.get_or_insert_with(|| Buckets::new(LATENCY_BOUNDS));
            latency.value.latencies.each(|millis, count| buckets.record(millis as f64 / 1e3, count));
        }
        if let Some(messages) = &leg.messages {
            let buckets = self.message_latency.get_or_insert_with(|| Buckets::new(MESSAGE_BOUNDS));
            messages.each(|millis, count| buckets.record(millis as f64 / 1e3, count));
        }
        for first_frame in &leg.first_frames {
            let buckets = self.first_frame.get_or_insert_with(|| Buckets::new(FIRST_FRAME_BOUNDS));
            buckets.record(first_frame.as_secs_f64(), 1);
        }
    }
}

/// Adds a value; saturates, since a sum must not decrease.
fn count(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_counts_in_its_bucket() {
        let mut buckets = Buckets::new(LATENCY_BOUNDS);
        for value in [0.2, 0.200_001, 9.0] {
            buckets.record(value, 1);
        }
        assert_eq!((buckets.counts[3], buckets.counts[4], buckets.counts[9]), (1, 1, 1));
        assert!((buckets.sum - 9.400_001).abs() < 1e-9);
    }
}
