//! How much of the past a ratio is judged on. Decides whether any trailing span carries enough evidence, in whole and
//! in number of occurrences, that the ratio passes its limit, and since when; refuses an answer while there is too
//! little, or when it is too old.

use std::time::Duration;

use crate::model::{Share, Timestamp};

/// What counts as evidence for one kind of ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvidenceRule {
    /// The whole that the smallest span must have (viewer-seconds, packets).
    pub whole: f64,
    /// So much of the part counts as one occurrence, where more were not counted: what belongs together proves less
    /// than what does not.
    pub occurrence: f64,
    /// The part of one occurrence in a class that was not watched for long yet (seconds a stall, packets a burst).
    pub length: f64,
    /// Whether the part is time, so that part over elapsed time is how many were affected at once.
    pub timed: bool,
    /// How much likelier, as a natural logarithm, what happened must be under a fault than in this class's usual
    /// course.
    pub proof: f64,
}

/// What a look at the trail found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    /// Over the limit beyond chance: the ratio over the smallest span that proves it, and the onset.
    Over(Share, Timestamp),
    /// Nothing proves it: the ratio over the smallest span of enough whole that is at least [`CALM`] long.
    Under(Share),
}

/// A trailing ratio. Keeps at most [`MAX_ENTRIES`] entries whatever the audience: fine ones for the present, [`COARSE`]
/// ones up to [`MAX_AGE`]. What leaves it unaccused teaches what is usual here.
#[derive(Clone, Debug)]
pub struct EvidenceWindow {
    need: &'static EvidenceRule,
    /// Ascending; the newest begins at `newest`.
    entries: Vec<Entry>,
    coarse: usize,
    usual: Baseline,
    newest: Timestamp,
    accused_until: Timestamp,
}

/// Kept small, since there are trails for every leg of every class.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// In milliseconds, of which only those since another entry mean anything.
    start: u32,
    /// How long, in steps of 2 ms, rounded up; no longer than two minutes.
    steps: u16,
    events: u16,
    part: f32,
    whole: f32,
}

/// Fine entries hold at least one part in so many of the needed whole.
pub(super) const GRAINS: usize = 3;

/// Most entries kept.
pub(super) const MAX_ENTRIES: usize = 24;

/// Length of the entries that the fine ones are merged into as they age.
pub(super) const COARSE: Duration = Duration::from_secs(5);

/// Evidence older than this says nothing of now.
pub(super) const MAX_AGE: Duration = Duration::from_mins(1);

/// Health is judged over at least so long: a lucky moment is no recovery.
pub(super) const CALM: Duration = Duration::from_secs(5);

/// How much likelier, as a natural logarithm, what happened must be under its own ratio than under the limit.
pub(super) const OVER: f64 = 1.5;

impl EvidenceWindow {
    /// An empty trail.
    #[must_use]
    pub const fn new(need: &'static EvidenceRule) -> Self {
        let never = Timestamp::from_secs(0);
        Self { need, entries: Vec::new(), coarse: 0, usual: Baseline::NEW, newest: never, accused_until: never }
    }

    /// Says that what is in it now, and what comes until `to`, belongs to a fault: it teaches nothing of the usual
    /// course.
    pub fn accuse(&mut self, to: Timestamp) {
        self.accused_until = to + MAX_AGE;
    }

    /// Adds what came between `from` and `to`: the share, and how many occurrences (stalls) began.
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
            let grain = self.need.whole / GRAINS as f64;
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
        // An end rounded up lies in the future at most.
        let is_old = |first: &Entry| end.wrapping_sub(first.end()).cast_signed() > MAX_AGE.as_millis() as i32;
        while self.entries.first().is_some_and(is_old) {
            self.leave(to);
        }
    }

    /// The share of the newest entries, at least `span` long where there is as much.
    #[must_use]
    pub fn lately(&self, span: Duration) -> Option<Share> {
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

    fn leave(&mut self, now: Timestamp) {
        if !self.entries.is_empty() {
            let entry = self.entries.remove(0);
            self.usual.learn(&entry, now <= self.accused_until, self.need);
        }
        self.coarse = self.coarse.saturating_sub(1);
    }

    /// What the trail says against `limit`, or `None` while there is too little evidence. Where the last [`CALM`]
    /// stayed under `clear`, what was before it no longer counts: it would keep an alert alive for as long as it is
    /// remembered.
    #[must_use]
    pub fn against(&self, limit: f64, clear: f64) -> Option<Judgement> {
        let newest = self.entries.last()?;
        let end = newest.end();
        // Most looks find nothing over the limit and need no usual course.
        let mut usual = None;
        let mut seen = Seen { sum: Share::default(), events: 0.0, elapsed: 0, coming: 0.0 };
        let (mut excess, mut most_excess, mut onset) = (0.0, 0.0, newest.start);
        let (mut shown, mut over, mut calm) = (None, None, None);
        for entry in self.entries.iter().rev() {
            let (part, whole) = (f64::from(entry.part), f64::from(entry.whole));
            seen.sum.part += part;
            seen.sum.whole += whole;
            seen.events += f64::from(entry.events);
            excess += part - limit * whole;
            if excess > most_excess {
                (most_excess, onset) = (excess, entry.start);
            }
            if seen.sum.whole < self.need.whole {
                continue;
            }
            seen.elapsed = end.wrapping_sub(entry.start);
            if over.is_none() {
                shown = shown.or((seen.sum.ratio() > limit).then_some(seen.sum));
                over = shown.filter(|_| {
                    let usual = usual.get_or_insert_with(|| self.usual.course(limit, self.need));
                    seen.coming = if self.need.timed { newest.part_per_second() * usual.length } else { 0.0 };
                    seen.proves(limit, usual, self.need)
                });
            }
            if calm.is_none() && u128::from(seen.elapsed) >= CALM.as_millis() {
                if over.is_none() && seen.sum.ratio() < clear {
                    return Some(Judgement::Under(seen.sum));
                }
                calm = Some(seen.sum);
            }
        }
        match over {
            Some(share) => {
                let before = Duration::from_millis(u64::from(newest.start.wrapping_sub(onset)));
                Some(Judgement::Over(share, self.newest - before))
            }
            None => (seen.sum.whole >= self.need.whole).then(|| Judgement::Under(calm.unwrap_or(seen.sum))),
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
            // The end of the newest.
            let now = self.entries.last().map_or(0, Entry::millis);
            self.leave(self.newest + Duration::from_millis(u64::from(now)));
        }
    }
}

/// One trailing span.
#[derive(Clone, Copy)]
struct Seen {
    sum: Share,
    events: f64,
    /// In milliseconds.
    elapsed: u32,
    /// Part that what goes on now will still bring.
    coming: f64,
}

impl Seen {
    /// Whether the span is over `limit` and far likelier under its own ratio than in the usual course. Each way of
    /// counting occurrences is held against its own expectation (generalised likelihood ratio).
    fn proves(&self, limit: f64, usual: &Course, need: &EvidenceRule) -> bool {
        let ratio = (self.sum.part + self.coming) / self.sum.whole;
        if ratio <= limit {
            return false;
        }
        let usually = usual.ratio * self.sum.whole;
        let elapsed = (f64::from(self.elapsed) / 1e3).max(0.001);
        let at_once = if need.timed { (self.sum.part / elapsed, usually / elapsed) } else { (0.0, 1.0) };
        let ways = [
            (self.events, usually / usual.length),
            (self.sum.part / need.occurrence, usually / need.occurrence),
            at_once,
        ];
        let told = ways.into_iter().map(|(count, expected)| (surprise(count, expected, usual.together), count));
        let (most, count) = told.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        most >= need.proof && surprise(count, count * limit / ratio, usual.together) >= OVER
    }
}

/// How unlikely `count` occurrences are where `expected` come on average in clusters of `together` (sizes geometric,
/// clusters Poisson): the rate function of large deviations, a natural logarithm. For single occurrences it is the
/// Poisson likelihood ratio. Zero where no more came than expected.
fn surprise(count: f64, expected: f64, together: f64) -> f64 {
    if count <= expected {
        return 0.0;
    }
    let (clusters, alone) = (expected / together, 1.0 / together);
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

/// What is usual in one class: forgotten over [`MEMORY`].
#[derive(Clone, Copy, Debug)]
struct Baseline {
    part: f32,
    whole: f32,
    events: f32,
    /// Sum and number of what neighbouring spans say of the spread.
    spread: (f32, f32),
    /// Number and whole of the last span.
    last: (f32, f32),
}

/// The usual course, as it is held against a limit.
struct Course {
    ratio: f64,
    /// Part of one occurrence.
    length: f64,
    /// Occurrences that come together.
    together: f64,
}

impl Baseline {
    const NEW: Self = Self { part: 0.0, whole: 0.0, events: 0.0, spread: (0.0, 0.0), last: (0.0, 0.0) };

    /// Takes in what leaves the trail; the ratio only where it was not accused. The spread is that between neighbouring
    /// spans, which a lasting fault hardly moves: (a - b)²/(a + b) is 1 on average where occurrences come singly, at
    /// any rate.
    fn learn(&mut self, entry: &Entry, accused: bool, need: &EvidenceRule) {
        let kept = 1.0 - (entry.millis() as f32 / 1e3 / MEMORY.as_secs_f32()).min(1.0);
        let count = f32::from(entry.events).max(entry.part / need.occurrence as f32);
        let (last, last_whole) = std::mem::replace(&mut self.last, (count, entry.whole));
        if last + count > 0.0 && last_whole > 0.0 {
            let difference = count * last_whole - last * entry.whole;
            let spread = difference.powi(2) / ((count + last) * entry.whole * last_whole);
            self.spread = (self.spread.0 * kept + spread.min(MOST_SPREAD), self.spread.1 * kept + 1.0);
        }
        if !accused {
            self.part = self.part * kept + entry.part;
            self.whole = self.whole * kept + entry.whole;
            self.events = self.events * kept + count;
        }
    }

    /// No better than [`PRESUMED`] of the limit: a quiet class may have its bad moment too. No worse than the limit.
    fn course(&self, limit: f64, need: &EvidenceRule) -> Course {
        let presumed = PRESUMED * limit;
        let prior = need.whole * PRIOR_WHOLES;
        let ratio = (f64::from(self.part) + presumed * prior) / (f64::from(self.whole) + prior);
        let events = presumed * prior / need.length;
        let length = (f64::from(self.part) + presumed * prior) / (f64::from(self.events) + events);
        let spread = f64::from((self.spread.0 + PRIOR_SPANS) / (self.spread.1 + PRIOR_SPANS));
        // The variance of geometric clusters of mean c is 2c - 1 times that of single ones.
        let together = f64::midpoint(spread, 1.0).max(1.0);
        Course { ratio: ratio.clamp(presumed, limit), length: length.min(LONGEST), together }
    }
}

/// The usual course is forgotten over so long.
const MEMORY: Duration = Duration::from_mins(10);
/// The share of the limit that a class is presumed to use in its usual course.
const PRESUMED: f64 = 0.3;
/// The presumption weighs as much as so many of the needed whole.
const PRIOR_WHOLES: f64 = 2.0;
/// The presumption of no clusters weighs as much as so many spans.
const PRIOR_SPANS: f32 = 12.0;
/// Two spans say no more than this of the spread.
const MOST_SPREAD: f32 = 200.0;
/// No occurrence is taken for longer than this.
const LONGEST: f64 = 2.0;

impl Entry {
    fn end(&self) -> u32 {
        self.start.wrapping_add(self.millis())
    }

    fn millis(&self) -> u32 {
        u32::from(self.steps) * 2
    }

    /// Of a part that is time: how many were affected at once. What goes on now will last: this is only its beginning.
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

/// Fine entries kept: with a minute of coarse ones they fit into [`MAX_ENTRIES`].
const MAX_FINE: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STALLS: EvidenceRule = EvidenceRule { whole: 60.0, occurrence: 5.0, length: 0.5, timed: true, proof: 12.0 };

    fn tick(number: u64) -> Timestamp {
        Timestamp::from_millis(number * 250)
    }

    fn trail(ticks: impl IntoIterator<Item = (f64, f64, u64)>) -> EvidenceWindow {
        let mut trailing = EvidenceWindow::new(&STALLS);
        for (number, (part, whole, events)) in (0..).zip(ticks) {
            trailing.add(tick(number), tick(number + 1), Share { part, whole }, events);
        }
        trailing
    }

    #[test]
    fn a_large_audience_is_judged_on_one_beat_and_its_onset_is_exact() {
        let healthy = std::iter::repeat_n((0.0, 250.0, 0), 9);
        let trailing = trail(healthy.chain([(10.0, 250.0, 50)]));
        assert_eq!(trailing.against(0.01, 0.007), Some(Judgement::Over(Share { part: 10.0, whole: 250.0 }, tick(9))));
    }

    #[test]
    fn one_stall_proves_nothing_and_many_of_the_same_sum_do() {
        let sum = |events| trail([(3.0, 75.0, events)]).against(0.01, 0.007);
        assert!(matches!(sum(15), Some(Judgement::Over(..))));
        let mut lone = EvidenceWindow::new(&STALLS);
        lone.add(tick(0), tick(100), Share { part: 3.0, whole: 75.0 }, 1);
        assert!(matches!(lone.against(0.01, 0.007), Some(Judgement::Under(_))));
    }

    #[test]
    fn a_viewer_that_never_comes_back_counts_at_last() {
        let judged: Vec<bool> = (40..240)
            .map(|ticks| trail(std::iter::repeat_n((0.25, 2.5, 0), ticks)))
            .map(|trailing| matches!(trailing.against(0.01, 0.007), Some(Judgement::Over(..))))
            .collect();
        assert_eq!((judged.first(), judged.last()), (Some(&false), Some(&true)));
    }

    #[test]
    fn little_and_old_evidence_give_nothing() {
        let mut trailing = trail(std::iter::repeat_n((0.0, 1.25, 0), 40));
        assert_eq!(trailing.against(0.01, 0.007), None, "five viewers for 10 s are 50 viewer-seconds");
        trailing.add(tick(40), tick(41), Share { part: 0.0, whole: 10.0 }, 0);
        assert!(trailing.against(0.01, 0.007).is_some());
        trailing.add(tick(400), tick(401), Share::default(), 0);
        assert_eq!(trailing.against(0.01, 0.007), None);
    }

    /// The supremum of t n - clusters (E exp(t size) - 1), looked for step by step.
    fn searched(count: f64, expected: f64, together: f64) -> f64 {
        let (alone, clusters) = (1.0 / together, expected / together);
        let most = if together > 1.0 { -(1.0 - alone).ln() } else { 9.0 };
        let steps = (1..20_000).map(|step| most * f64::from(step) / 20_000.0);
        let at = |t: f64| t * count - clusters * (alone * t.exp() / (1.0 - (1.0 - alone) * t.exp()) - 1.0);
        steps.map(at).fold(0.0, f64::max)
    }

    #[test]
    fn what_comes_in_clusters_surprises_less() {
        for (count, expected, together) in [(12.0, 2.0, 1.0), (25.0, 0.3, 4.0), (80.0, 30.0, 3.0), (7.0, 1.0, 1.5)] {
            let (found, truth) = (surprise(count, expected, together), searched(count, expected, together));
            assert!(
                (found - truth).abs() < 0.01 * truth + 0.02,
                "{count} of {expected} by {together}: {found}, {truth}"
            );
        }
        assert!(surprise(1.0, 2.0, 1.0) == 0.0 && surprise(20.0, 2.0, 5.0) < surprise(20.0, 2.0, 1.0) / 3.0);
    }

    proptest! {
        #[test]
        fn entries_stay_few_and_a_constant_ratio_is_read_back(wholes in prop::collection::vec(0.0..400.0_f64, 1..600)) {
            let mut trailing = EvidenceWindow::new(&STALLS);
            let mut sum = 0.0;
            for (number, whole) in (0..).zip(wholes) {
                trailing.add(tick(number), tick(number + 1), Share { part: whole / 10.0, whole }, 1);
                sum += whole;
                prop_assert!(trailing.entries.len() <= MAX_ENTRIES && trailing.coarse <= trailing.entries.len());
                let kept: f64 = trailing.entries.iter().map(|entry| f64::from(entry.whole)).sum();
                prop_assert!(kept <= sum * 1.000_01);
                prop_assert!(number >= 240 || (kept - sum).abs() <= sum * 1e-5, "a minute is kept whole: {kept} of {sum}");
                match trailing.against(0.2, 0.14) {
                    Some(Judgement::Under(share)) => prop_assert!((share.ratio() - 0.1).abs() < 1e-4),
                    other => prop_assert!(other.is_none() && sum < STALLS.whole * 1.001 || kept < STALLS.whole * 1.001),
                }
            }
        }
    }
}
