//! The smallest trailing span that carries enough evidence. Decides over how much of the past a ratio is taken, by the size of its
//! whole and not by the clock; refuses an answer while there is too little, or when it is too old.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sample::Share;
use crate::time::Timestamp;

/// A trailing ratio. Keeps at most about [`GRAINS`] entries whatever the audience.
#[derive(Clone, Debug)]
pub struct Trailing {
    need: f64,
    entries: VecDeque<Entry>,
    sum: Share,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: Timestamp,
    end: Timestamp,
    share: Share,
}

/// Entries the needed whole is cut into: the span is at most one part in so many longer than the smallest.
pub const GRAINS: usize = 20;

/// Evidence older than this says nothing of now.
pub const MAX_AGE: Duration = Duration::from_mins(1);

impl Trailing {
    /// A trailing ratio over at least `need` of its whole (viewer-seconds, packets).
    #[must_use]
    pub fn new(need: f64) -> Self {
        Self {
            need,
            entries: VecDeque::new(),
            sum: Share::default(),
        }
    }

    /// Adds what came between `from` and `to`.
    pub fn add(&mut self, from: Timestamp, to: Timestamp, share: Share) {
        if share.whole > 0.0 {
            let grain = self.need / GRAINS as f64;
            match self.entries.back_mut() {
                Some(last) if last.share.whole < grain => {
                    last.end = to;
                    last.share.part += share.part;
                    last.share.whole += share.whole;
                }
                _ => self.entries.push_back(Entry {
                    start: from,
                    end: to,
                    share,
                }),
            }
            self.sum.part += share.part;
            self.sum.whole += share.whole;
        }
        while let Some(first) = self.entries.front()
            && (self.sum.whole - first.share.whole >= self.need || to.since(first.end) > MAX_AGE)
        {
            self.sum.part -= first.share.part;
            self.sum.whole -= first.share.whole;
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            self.sum = Share::default();
        }
    }

    /// The ratio and since when it is taken, or `None` while there is too little evidence.
    #[must_use]
    pub fn share(&self) -> Option<(Share, Timestamp)> {
        let first = self.entries.front()?;
        (self.sum.whole >= self.need).then_some((self.sum, first.start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat(number: u64) -> Timestamp {
        Timestamp::from_millis(number * 250)
    }

    #[test]
    fn a_large_audience_is_judged_on_one_beat() {
        let mut trailing = Trailing::new(60.0);
        for number in 0..10 {
            trailing.add(
                beat(number),
                beat(number + 1),
                Share {
                    part: if number < 9 { 0.0 } else { 5.0 },
                    whole: 250.0,
                },
            );
        }
        let (share, since) = trailing.share().expect("much evidence");
        assert!((share.ratio() - 0.02).abs() < 1e-9);
        assert_eq!(since, beat(9));
    }

    #[test]
    fn a_small_audience_takes_longer_and_a_silent_one_gives_nothing() {
        let mut trailing = Trailing::new(60.0);
        for number in 0..40 {
            trailing.add(beat(number), beat(number + 1), Share { part: 0.0, whole: 1.25 });
        }
        assert!(
            trailing.share().is_none(),
            "five viewers for 10 s are 50 viewer-seconds"
        );
        for number in 40..60 {
            trailing.add(beat(number), beat(number + 1), Share { part: 0.0, whole: 1.25 });
        }
        assert!(trailing.share().is_some());
        trailing.add(beat(400), beat(401), Share::default());
        assert!(trailing.share().is_none());
    }

    proptest! {
        #[test]
        fn entries_stay_few_and_the_sum_is_theirs(wholes in prop::collection::vec(0.0..40.0_f64, 1..400)) {
            let mut trailing = Trailing::new(60.0);
            for (number, whole) in wholes.into_iter().enumerate() {
                trailing.add(beat(number as u64), beat(number as u64 + 1), Share { part: whole / 10.0, whole });
                prop_assert!(trailing.entries.len() <= 2 * GRAINS + 2);
                let sum: f64 = trailing.entries.iter().map(|entry| entry.share.whole).sum();
                prop_assert!((sum - trailing.sum.whole).abs() < 1e-6);
                if let Some((share, _)) = trailing.share() {
                    prop_assert!((share.ratio() - 0.1).abs() < 1e-6);
                }
            }
        }
    }
}
