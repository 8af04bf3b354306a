//! A viewer's stall time and exposure of the last minute, in 16 bytes. Decides who stutters. It forgets in steps of
//! [`STEP_SECONDS`], so it covers the last 40 to 60 s.

/// Sums over three steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recent {
    /// Number of the newest step since the Unix epoch.
    step: u32,
    /// Exposure by step, ms; the newest is at `step % 3`.
    exposure: [u16; STEPS],
    stalled: [u16; STEPS],
}

impl Recent {
    /// Adds what was reported at `now`, Unix milliseconds.
    pub(crate) fn add(&mut self, now: u64, exposure_millis: u64, stalled_millis: u64) {
        self.turn(now);
        let slot = self.step as usize % STEPS;
        let add = |sum: &mut u16, more: u64| *sum = sum.saturating_add(u16::try_from(more).unwrap_or(u16::MAX));
        add(&mut self.exposure[slot], exposure_millis);
        add(&mut self.stalled[slot], stalled_millis);
    }

    /// Whether the viewer was exposed in the last minute, and whether more than [`STUTTER_PERCENT`] of that was
    /// stalled.
    pub(crate) fn at(&mut self, now: u64) -> (bool, bool) {
        self.turn(now);
        let sum = |of: &[u16; STEPS]| of.iter().map(|part| u32::from(*part)).sum::<u32>();
        let (exposure, stalled) = (sum(&self.exposure), sum(&self.stalled));
        (exposure > 0, stalled * 100 > exposure * STUTTER_PERCENT)
    }

    fn turn(&mut self, now: u64) {
        let step = u32::try_from(now / (STEP_SECONDS * 1_000)).unwrap_or(u32::MAX);
        let passed = step.saturating_sub(self.step).min(STEPS as u32);
        for number in 0..passed {
            let slot = (step - number) as usize % STEPS;
            (self.exposure[slot], self.stalled[slot]) = (0, 0);
        }
        self.step = self.step.max(step);
    }
}

/// A viewer stutters when its stall time is a larger share of its exposure, in percent.
const STUTTER_PERCENT: u32 = 5;
/// Length of a step.
const STEP_SECONDS: u64 = 20;
const STEPS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_after_a_minute() {
        let mut recent = Recent::default();
        assert_eq!(recent.at(1_000_000), (false, false));
        recent.add(1_000_000, 2_000, 150);
        assert_eq!(recent.at(1_000_000), (true, true));
        recent.add(1_020_000, 1_000, 0);
        assert_eq!(recent.at(1_020_000), (true, false), "exactly 5 % is not more");
        recent.add(1_021_000, 0, 1);
        assert_eq!(recent.at(1_059_999), (true, true));
        assert_eq!(recent.at(1_060_000), (true, false), "the first step is out");
        assert_eq!(recent.at(1_100_000), (false, false));
        recent.add(u64::MAX, u64::MAX, u64::MAX);
        recent.add(0, u64::MAX, 0);
        assert!(recent.at(0).0);
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Recent>(), 16);
    }
}
