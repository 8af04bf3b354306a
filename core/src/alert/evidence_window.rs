//! How much of the past a ratio is judged on. Decides whether any trailing span carries enough evidence that the ratio
//! exceeds its limit, and since when: enough of the whole (viewer-seconds, packets) and enough occurrences. Gives no
//! answer while there is too little, or only old evidence.

use std::time::Duration;

use crate::model::{Share, Timestamp};

/// What counts as evidence for one kind of ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvidenceRule {
    /// The smallest whole that a span must have (viewer-seconds, packets).
    pub whole: f64,
    /// This much of the part counts as one occurrence where no more were counted: what happens together proves less
    /// than what does not.
    pub occurrence: f64,
    /// Presumed part of one occurrence, in a class that was not observed for long (seconds of a stall, packets of a
    /// burst).
    pub length: f64,
    /// Whether the part is time, so that part over elapsed time is how many were affected at once.
    pub timed: bool,
    /// Required log-likelihood ratio (natural logarithm) of a fault against this class's baseline.
    pub proof: f64,
}

/// The result of a judgement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    /// Over the limit beyond chance: the ratio over the smallest span that proves it, and the onset.
    Over(Share, Timestamp),
    /// Nothing proves a breach: the ratio over the smallest span with enough whole that is at least `RECOVERY_SPAN`
    /// long.
    Under(Share),
}

/// A trailing ratio. Keeps at most `MAX_ENTRIES` entries whatever the audience: fine ones of the last seconds and
/// `COARSE` ones up to `MAX_AGE`. Entries that leave it form the baseline, unless they were excluded.
#[derive(Clone, Debug)]
pub struct EvidenceWindow {
    rule: &'static EvidenceRule,
    /// Ascending; the newest begins at `newest`.
    entries: Vec<Entry>,
    coarse: usize,
    baseline: Baseline,
    newest: Timestamp,
    excluded_until: Timestamp,
}

/// Kept small: every leg of every class has two windows of them.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// In milliseconds; only differences between entries are meaningful.
    start: u32,
    /// Length in steps of 2 ms, rounded up; at most two minutes.
    steps: u16,
    events: u16,
    part: f32,
    whole: f32,
}

/// A fine entry holds at least the needed whole divided by this.
pub(super) const GRAINS: usize = 3;

/// Most entries kept.
pub(super) const MAX_ENTRIES: usize = 24;

/// Length of the entries that fine ones are merged into as they age.
pub(super) const COARSE: Duration = Duration::from_secs(5);

/// Older evidence says nothing about the present.
pub(super) const MAX_AGE: Duration = Duration::from_mins(1);

/// A recovery is judged over at least this long: one good moment proves nothing.
pub(super) const RECOVERY_SPAN: Duration = Duration::from_secs(5);

/// Required log-likelihood ratio (natural logarithm) of the observed ratio against the limit.
pub(super) const OVER: f64 = 1.5;

impl EvidenceWindow {
    /// An empty window.
    #[must_use]
    pub const fn new(rule: &'static EvidenceRule) -> Self {
        let never = Timestamp::from_secs(0);
        Self { rule, entries: Vec::new(), coarse: 0, baseline: Baseline::NEW, newest: never, excluded_until: never }
    }

    /// Excludes from the baseline what the window holds now and what is added until `to`: it belongs to a fault.
    pub fn exclude_from_baseline(&mut self, to: Timestamp) {
        self.excluded_until = to + MAX_AGE;
    }

    /// Adds what was measured between `from` and `to`: the share, and how many occurrences (stalls) began.
    pub fn add(&mut self, from: Timestamp, to: Timestamp, share: Share, events: u64) {
        let end = to.millis() as u32;
        if share.whole > 0.0 {
            let length = to.millis().saturating_sub(from.millis());
            let new = Entry {
                start: from.millis() as u32,
                steps: steps(u32::try_from(length).unwrap_or(u32::MAX)),
                events: u16::try_from(events).unwrap_or(u16::MAX),
                part: share.part as f32,
                whole: share.whole as f32,
            };
            let fine = self.entries.len() > self.coarse;
            let grain = self.rule.whole / GRAINS as f64;
            match self.entries.last_mut() {
                Some(last) if fine && f64::from(last.whole) < grain => last.take(&new),
                _ => {
                    if self.entries.len() == self.entries.capacity() {
                        self.entries.reserve_exact(MAX_ENTRIES / 6);
                    }
                    self.entries.push(new);
                    self.newest = Timestamp::from_millis(from.millis());
                }
            }
            self.coarsen();
        }
        // An end that was rounded up can at most lie in the future.
        let is_old = |first: &Entry| end.wrapping_sub(first.end()).cast_signed() > MAX_AGE.as_millis() as i32;
        while self.entries.first().is_some_and(is_old) {
            self.drop_oldest(to);
        }
    }

    /// The share over the newest entries, at least `span` long where there are that many.
    #[must_use]
    pub fn recent(&self, span: Duration) -> Option<Share> {
        let end = self.entries.last()?.end();
        let mut sum = Share::default();
        for entry in self.entries.iter().rev() {
            sum.part += f64::from(entry.part);
            sum.whole += f64::from(entry.whole);
            if u128::from(end.wrapping_sub(entry.start)) >= span.as_millis() {
                break;
            }
        }
        Share::of(sum.part, sum.whole)
    }

    fn drop_oldest(&mut self, now: Timestamp) {
        if !self.entries.is_empty() {
            let entry = self.entries.remove(0);
            self.baseline.learn(&entry, now <= self.excluded_until, self.rule);
        }
        self.coarse = self.coarse.saturating_sub(1);
    }

    /// Judges the window against `limit`; `None` while there is too little evidence. Where the last `RECOVERY_SPAN`
    /// stayed under `clear`, older entries no longer count: they would keep an alert firing until they age out.
    #[must_use]
    pub fn judge(&self, limit: f64, clear: f64) -> Option<Judgement> {
        let newest = self.entries.last()?;
        let end = newest.end();
        // Most evaluations find nothing over the limit and need no baseline.
        let mut baseline = None;
        let mut seen = Span { sum: Share::default(), events: 0.0, elapsed: 0, pending: 0.0 };
        let (mut excess, mut most_excess, mut onset) = (0.0, 0.0, newest.start);
        let (mut shown, mut over, mut recovered) = (None, None, None);
        for entry in self.entries.iter().rev() {
            let (part, whole) = (f64::from(entry.part), f64::from(entry.whole));
            seen.sum.part += part;
            seen.sum.whole += whole;
            seen.events += f64::from(entry.events);
            excess += part - limit * whole;
            if excess > most_excess {
                (most_excess, onset) = (excess, entry.start);
            }
            if seen.sum.whole < self.rule.whole {
                continue;
            }
            seen.elapsed = end.wrapping_sub(entry.start);
            if over.is_none() {
                shown = shown.or((seen.sum.ratio() > limit).then_some(seen.sum));
                over = shown.filter(|_| {
                    let baseline = baseline.get_or_insert_with(|| self.baseline.expectation(limit, self.rule));
                    seen.pending = if self.rule.timed { newest.part_per_second() * baseline.length } else { 0.0 };
                    seen.proves(limit, baseline, self.rule)
                });
            }
            if recovered.is_none() && u128::from(seen.elapsed) >= RECOVERY_SPAN.as_millis() {
                if over.is_none() && seen.sum.ratio() < clear {
                    return Some(Judgement::Under(seen.sum));
                }
                recovered = Some(seen.sum);
            }
        }
        match over {
            Some(share) => {
                let before = Duration::from_millis(u64::from(newest.start.wrapping_sub(onset)));
                Some(Judgement::Over(share, self.newest - before))
            }
            None => (seen.sum.whole >= self.rule.whole).then(|| Judgement::Under(recovered.unwrap_or(seen.sum))),
        }
    }

    /// Merges the oldest fine entry into the coarse ones when there are too many.
    fn coarsen(&mut self) {
        if self.entries.len() - self.coarse <= MAX_FINE {
            return;
        }
        let oldest = self.entries[self.coarse];
        match self.coarse.checked_sub(1).map(|at| &mut self.entries[at]) {
            Some(last) if u128::from(last.millis()) < COARSE.as_millis() => {
                last.take(&oldest);
                self.entries.remove(self.coarse);
            }
            _ => self.coarse += 1,
        }
        if self.entries.len() > MAX_ENTRIES {
            // The end of the newest entry.
            let now = self.entries.last().map_or(0, Entry::millis);
            self.drop_oldest(self.newest + Duration::from_millis(u64::from(now)));
        }
    }
}

/// One trailing span.
#[derive(Clone, Copy)]
struct Span {
    sum: Share,
    events: f64,
    /// In milliseconds.
    elapsed: u32,
    /// Further part that ongoing occurrences will still add.
    pending: f64,
}

impl Span {
    /// Whether the span is over `limit` and far likelier under its own ratio than under the baseline. Each way of
    /// counting occurrences is compared with its own expectation (generalised likelihood ratio).
    fn proves(&self, limit: f64, baseline: &Expectation, rule: &EvidenceRule) -> bool {
        let ratio = (self.sum.part + self.pending) / self.sum.whole;
        if ratio <= limit {
            return false;
        }
        let expected_part = baseline.ratio * self.sum.whole;
        let elapsed = (f64::from(self.elapsed) / 1e3).max(0.001);
        let concurrent = if rule.timed { (self.sum.part / elapsed, expected_part / elapsed) } else { (0.0, 1.0) };
        let ways = [
            (self.events, expected_part / baseline.length),
            (self.sum.part / rule.occurrence, expected_part / rule.occurrence),
            concurrent,
        ];
        let measured = ways
            .into_iter()
            .map(|(count, expected)| (log_likelihood_ratio(count, expected, baseline.cluster_size), count));
        let (most, count) = measured.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        most >= rule.proof && log_likelihood_ratio(count, count * limit / ratio, baseline.cluster_size) >= OVER
    }
}

/// How unlikely `count` occurrences are where `expected` are expected on average, in clusters of mean size
/// `cluster_size` (sizes geometric, clusters Poisson): the rate function of large deviations, a natural logarithm. For
/// single occurrences it is the Poisson log-likelihood ratio. Zero where no more than expected occurred.
fn log_likelihood_ratio(count: f64, expected: f64, cluster_size: f64) -> f64 {
    if count <= expected {
        return 0.0;
    }
    let (clusters, alone) = (expected / cluster_size, 1.0 / cluster_size);
    let more = 1.0 - alone;
    // Where the tilted mean is the count: count (1 - more z)^2 = clusters alone z.
    let tilt = if more < 1e-6 {
        count / expected
    } else {
        let half = count.mul_add(2.0 * more, clusters * alone) / 2.0;
        (half - (half * half - (more * count).powi(2)).max(0.0).sqrt()) / (more * more * count)
    };
    count * tilt.ln() - clusters * (alone * tilt / (1.0 - more * tilt) - 1.0)
}

/// The baseline of one class; forgotten over [`MEMORY`].
#[derive(Clone, Copy, Debug)]
struct Baseline {
    part: f32,
    whole: f32,
    events: f32,
    /// Sum and number of the spreads between neighbouring spans.
    spread: (f32, f32),
    /// Number and whole of the last span.
    last: (f32, f32),
}

/// The baseline as it is compared with a limit.
struct Expectation {
    ratio: f64,
    /// Part of one occurrence.
    length: f64,
    /// Occurrences in one cluster.
    cluster_size: f64,
}

impl Baseline {
    const NEW: Self = Self { part: 0.0, whole: 0.0, events: 0.0, spread: (0.0, 0.0), last: (0.0, 0.0) };

    /// Takes in an entry that leaves the window; the ratio only where it was not excluded. The spread is that between
    /// neighbouring spans, which a lasting fault hardly moves: (a - b)²/(a + b) is 1 on average where occurrences are
    /// independent, at any rate.
    fn learn(&mut self, entry: &Entry, excluded: bool, rule: &EvidenceRule) {
        let kept = 1.0 - (entry.millis() as f32 / 1e3 / MEMORY.as_secs_f32()).min(1.0);
        let count = f32::from(entry.events).max(entry.part / rule.occurrence as f32);
        let (last, last_whole) = std::mem::replace(&mut self.last, (count, entry.whole));
        if last + count > 0.0 && last_whole > 0.0 {
            let difference = count * last_whole - last * entry.whole;
            let spread = difference.powi(2) / ((count + last) * entry.whole * last_whole);
            self.spread = (self.spread.0 * kept + spread.min(MOST_SPREAD), self.spread.1 * kept + 1.0);
        }
        if !excluded {
            self.part = self.part * kept + entry.part;
            self.whole = self.whole * kept + entry.whole;
            self.events = self.events * kept + count;
        }
    }

    /// At least [`PRESUMED`] of the limit, since a quiet class may have a bad moment too; at most the limit.
    fn expectation(&self, limit: f64, rule: &EvidenceRule) -> Expectation {
        let presumed = PRESUMED * limit;
        let prior = rule.whole * PRIOR_WHOLES;
        let ratio = (f64::from(self.part) + presumed * prior) / (f64::from(self.whole) + prior);
        let events = presumed * prior / rule.length;
        let length = (f64::from(self.part) + presumed * prior) / (f64::from(self.events) + events);
        let spread = f64::from((self.spread.0 + PRIOR_SPANS) / (self.spread.1 + PRIOR_SPANS));
        // The variance of geometric clusters of mean c is 2c - 1 times that of single ones.
        let cluster_size = f64::midpoint(spread, 1.0).max(1.0);
        Expectation { ratio: ratio.clamp(presumed, limit), length: length.min(LONGEST), cluster_size }
    }
}

/// The baseline is forgotten over this time.
const MEMORY: Duration = Duration::from_mins(10);
/// The share of the limit that a class is presumed to use in its baseline.
const PRESUMED: f64 = 0.3;
/// The presumption weighs as much as this many times the needed whole.
const PRIOR_WHOLES: f64 = 2.0;
/// The presumption of no clusters weighs as much as this many spans.
const PRIOR_SPANS: f32 = 12.0;
/// Most spread that two spans can add.
const MOST_SPREAD: f32 = 200.0;
/// An occurrence is presumed to be no longer than this.
const LONGEST: f64 = 2.0;

impl Entry {
    fn end(&self) -> u32 {
        self.start.wrapping_add(self.millis())
    }

    fn millis(&self) -> u32 {
        u32::from(self.steps) * 2
    }

    /// Where the part is time: how many are affected at once. What is ongoing will last; this is only its beginning.
    fn part_per_second(&self) -> f64 {
        f64::from(self.part) / (f64::from(self.millis()) / 1e3).max(0.001)
    }

    fn take(&mut self, later: &Self) {
        self.steps = steps(later.end().wrapping_sub(self.start));
        self.events = self.events.saturating_add(later.events);
        self.part += later.part;
        self.whole += later.whole;
    }
}

fn steps(millis: u32) -> u16 {
    u16::try_from(millis.div_ceil(2)).unwrap_or(u16::MAX)
}

/// Fine entries kept; with a minute of coarse ones they fit into `MAX_ENTRIES`.
const MAX_FINE: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STALLS: EvidenceRule = EvidenceRule { whole: 60.0, occurrence: 5.0, length: 0.5, timed: true, proof: 12.0 };

    fn tick(number: u64) -> Timestamp {
        Timestamp::from_millis(number * 250)
    }

    fn window(ticks: impl IntoIterator<Item = (f64, f64, u64)>) -> EvidenceWindow {
        let mut window = EvidenceWindow::new(&STALLS);
        for (number, (part, whole, events)) in (0..).zip(ticks) {
            window.add(tick(number), tick(number + 1), Share { part, whole }, events);
        }
        window
    }

    #[test]
    fn a_large_audience_is_judged_on_one_tick_and_its_onset_is_exact() {
        let healthy = std::iter::repeat_n((0.0, 250.0, 0), 9);
        let window = window(healthy.chain([(10.0, 250.0, 50)]));
        assert_eq!(window.judge(0.01, 0.007), Some(Judgement::Over(Share { part: 10.0, whole: 250.0 }, tick(9))));
    }

    #[test]
    fn one_stall_proves_nothing_and_many_of_the_same_total_do() {
        let sum = |events| window([(3.0, 75.0, events)]).judge(0.01, 0.007);
        assert!(matches!(sum(15), Some(Judgement::Over(..))));
        let mut lone = EvidenceWindow::new(&STALLS);
        lone.add(tick(0), tick(100), Share { part: 3.0, whole: 75.0 }, 1);
        assert!(matches!(lone.judge(0.01, 0.007), Some(Judgement::Under(_))));
    }

    #[test]
    fn a_viewer_that_never_recovers_counts_in_the_end() {
        let judged: Vec<bool> = (40..240)
            .map(|ticks| window(std::iter::repeat_n((0.25, 2.5, 0), ticks)))
            .map(|window| matches!(window.judge(0.01, 0.007), Some(Judgement::Over(..))))
            .collect();
        assert_eq!((judged.first(), judged.last()), (Some(&false), Some(&true)));
    }

    #[test]
    fn little_or_old_evidence_gives_no_judgement() {
        let mut window = window(std::iter::repeat_n((0.0, 1.25, 0), 40));
        assert_eq!(window.judge(0.01, 0.007), None, "five viewers for 10 s are 50 viewer-seconds");
        window.add(tick(40), tick(41), Share { part: 0.0, whole: 10.0 }, 0);
        assert!(window.judge(0.01, 0.007).is_some());
        window.add(tick(400), tick(401), Share::default(), 0);
        assert_eq!(window.judge(0.01, 0.007), None);
    }

    /// The supremum of t n - clusters (E exp(t size) - 1), searched step by step.
    fn searched(count: f64, expected: f64, cluster_size: f64) -> f64 {
        let (alone, clusters) = (1.0 / cluster_size, expected / cluster_size);
        let most = if cluster_size > 1.0 { -(1.0 - alone).ln() } else { 9.0 };
        let steps = (1..20_000).map(|step| most * f64::from(step) / 20_000.0);
        let at = |t: f64| t * count - clusters * (alone * t.exp() / (1.0 - (1.0 - alone) * t.exp()) - 1.0);
        steps.map(at).fold(0.0, f64::max)
    }

    #[test]
    fn clustered_occurrences_prove_less() {
        for (count, expected, cluster_size) in [(12.0, 2.0, 1.0), (25.0, 0.3, 4.0), (80.0, 30.0, 3.0), (7.0, 1.0, 1.5)]
        {
            let (found, truth) =
                (log_likelihood_ratio(count, expected, cluster_size), searched(count, expected, cluster_size));
            assert!(
                (found - truth).abs() < 0.01 * truth + 0.02,
                "{count} of {expected} by {cluster_size}: {found}, {truth}"
            );
        }
        assert!(
            log_likelihood_ratio(1.0, 2.0, 1.0) == 0.0
                && log_likelihood_ratio(20.0, 2.0, 5.0) < log_likelihood_ratio(20.0, 2.0, 1.0) / 3.0
        );
    }

    proptest! {
        #[test]
        fn entries_stay_bounded_and_a_constant_ratio_is_read_back(wholes in prop::collection::vec(0.0..400.0_f64, 1..600)) {
            let mut window = EvidenceWindow::new(&STALLS);
            let mut sum = 0.0;
            for (number, whole) in (0..).zip(wholes) {
                window.add(tick(number), tick(number + 1), Share { part: whole / 10.0, whole }, 1);
                sum += whole;
                prop_assert!(window.entries.len() <= MAX_ENTRIES && window.coarse <= window.entries.len());
                let kept: f64 = window.entries.iter().map(|entry| f64::from(entry.whole)).sum();
                prop_assert!(kept <= sum * 1.000_01);
                prop_assert!(number >= 240 || (kept - sum).abs() <= sum * 1e-5, "a minute is kept whole: {kept} of {sum}");
                match window.judge(0.2, 0.14) {
                    Some(Judgement::Under(share)) => prop_assert!((share.ratio() - 0.1).abs() < 1e-4),
                    other => prop_assert!(other.is_none() && sum < STALLS.whole * 1.001 || kept < STALLS.whole * 1.001),
                }
            }
        }
    }
}
