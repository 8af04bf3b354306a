//! Stall time of one viewer from its requests alone, by conservation of the buffer: time that went by and was not played was stalled.
//! Decides what is a stall and what a pause, a seek or rounding; refuses a stall where the player gave no sign or its buffer could
//! not have run dry.
//!
//! Between two media requests of one object type the player consumes `bl + d - bl'` of media. What the clock says beyond that grows an
//! excess. It wavers with the 100 ms rounding of `bl` about a level; a rise beyond [`NOISE_MILLIS`] is a stall of that length, and the
//! level after it is refined by the next requests, so that roundings do not add up.

use crate::viewer::Told;

/// One media request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// When it was made, Unix milliseconds.
    pub(crate) at: u64,
    /// Buffer length.
    pub(crate) bl: u32,
    /// Duration of what is asked for.
    pub(crate) d: u32,
    /// Playback rate in thousandths.
    pub(crate) rate: u32,
    /// Whether it carries `bs`, `sta=r` or `su`: the player says that its buffer runs or ran dry.
    pub(crate) starving: bool,
    /// Whether it may still be starting: `su`, or a state before playing.
    pub(crate) starting: bool,
}

/// What is remembered between two requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BufferStall {
    at: u64,
    bl: u32,
    d: u32,
    /// Milliseconds above the level; while starting: media consumed.
    excess: i32,
    /// Stall time found and not told yet; negative where too much was told.
    owed: i32,
    phase: Phase,
    /// Looks that the level is the mean of.
    looks: u8,
    starving: bool,
    stalled: bool,
    after_stall: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    Starting,
    Playing,
}

impl BufferStall {
    /// Folds a request; what it adds goes to `told`.
    pub(crate) fn look(&mut self, look: Look, told: &mut Told) {
        let was = *self;
        let Some(passed) = look.at.checked_sub(was.at).filter(|_| was.phase != Phase::New) else {
            // The first one, or one overtaken by a later one: a parallel fetch tells nothing of time.
            if was.phase == Phase::New {
                self.remember(look);
                self.phase = if look.starting { Phase::Starting } else { Phase::Playing };
            }
            return;
        };
        self.remember(look);
        if passed > MAX_GAP_MILLIS {
            *self = Self { phase: Phase::Playing, at: look.at, bl: look.bl, d: look.d, ..Self::default() };
            return;
        }
        let passed = passed as i32;
        let consumed = i64::from(was.bl) + i64::from(was.d) - i64::from(look.bl);
        let consumed = (consumed * 1_000 / i64::from(look.rate.max(1))).clamp(-MAX_STEP, MAX_STEP) as i32;
        if was.phase == Phase::Starting {
            self.excess = was.excess.saturating_add(consumed);
            if !look.starting {
                told.exposure_millis += u64::from(self.excess.clamp(0, passed.max(MAX_START)).unsigned_abs());
                (self.phase, self.excess) = (Phase::Playing, 0);
            }
            return;
        }
        told.exposure_millis += u64::from(passed.unsigned_abs());
        self.excess = was.excess.saturating_add(passed).saturating_sub(consumed);
        if self.excess > NOISE_MILLIS {
            let signed = look.starving || was.starving || was.stalled;
            let could_run_dry = i64::from(passed) + ROUNDING >= i64::from(was.bl);
            let full = i64::from(was.d) + ROUNDING + if was.stalled || was.starving { i64::from(was.bl) } else { 0 };
            self.rise(signed && could_run_dry && i64::from(look.bl) <= full, passed - consumed, told);
        } else if self.excess < -NOISE_MILLIS {
            // Media was skipped: a seek, or a jump to the live edge.
            self.level(false);
        } else {
            self.refine();
        }
        self.tell(passed, told);
    }

    /// The excess rose beyond noise: a stall, or a pause that is no exposure.
    fn rise(&mut self, is_stall: bool, unplayed: i32, told: &mut Told) {
        if is_stall {
            self.owed = self.owed.saturating_add(self.excess);
            told.starts += u32::from(!self.stalled);
        } else if unplayed > NOISE_MILLIS {
            told.exposure_millis = told.exposure_millis.saturating_sub(u64::from(unplayed.unsigned_abs()));
        }
        self.level(is_stall);
    }

    fn level(&mut self, after_stall: bool) {
        (self.excess, self.looks) = (0, 0);
        (self.stalled, self.after_stall) = (after_stall, after_stall);
    }

    /// Moves the level towards the mean of what is looked at; after a stall that corrects how long it was.
    fn refine(&mut self) {
        self.stalled = false;
        self.looks = (self.looks + 1).min(MAX_LOOKS);
        let shift = self.excess / (i32::from(self.looks) + 1);
        self.excess -= shift;
        if self.after_stall && self.looks < MAX_LOOKS {
            self.owed = self.owed.saturating_add(shift);
        }
    }

    /// Tells what is owed, never more than went by.
    fn tell(&mut self, passed: i32, told: &mut Told) {
        let now = self.owed.clamp(0, passed);
        self.owed -= now;
        told.stalled_millis += u64::from(now.unsigned_abs());
    }

    fn remember(&mut self, look: Look) {
        (self.at, self.bl, self.d, self.starving) = (look.at, look.bl, look.d, look.starving);
    }
}

/// How far the excess may waver: two roundings to 100 ms and the jitter of request times.
pub(crate) const NOISE_MILLIS: i32 = 200;
/// A viewer without a request for so long may have done anything in between; nothing is said of it.
pub(crate) const MAX_GAP_MILLIS: u64 = 120_000;
const ROUNDING: i64 = 150;
const MAX_LOOKS: u8 = 16;
/// Longest time between two requests in a startup that is taken as played.
const MAX_START: i32 = 30_000;
/// Most media that one step is believed to consume.
const MAX_STEP: i64 = 600_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A player with segments of 2 s behind a link that takes `load` to carry each: the ideal of the derivation.
    fn play(loads: &[u64]) -> (u64, u64, Told) {
        let (mut clock, mut head, mut position, mut stalled) = (1_000_000_u64, 0_u64, 0_u64, 0_u64);
        let (mut rule, mut told, mut dry) = (BufferStall::default(), Told::default(), false);
        let began = clock;
        for load in loads {
            // Plays while the segment loads.
            let bl = head - position;
            let rounded = (bl + 50) / 100 * 100;
            let look =
                Look { at: clock, bl: rounded as u32, d: 2_000, rate: 1_000, starving: dry, starting: head == 0 };
            rule.look(look, &mut told);
            let played = if head == 0 { 0 } else { bl.min(*load) };
            dry = head > 0 && *load > bl;
            stalled += if dry { load - bl } else { 0 };
            position += played;
            clock += load;
            head += 2_000;
        }
        (stalled, clock - began, told)
    }

    #[test]
    fn a_steady_player_has_no_stall() {
        let (stalled, _, told) = play(&[1_990; 60]);
        assert_eq!((stalled, told.stalled_millis, told.starts), (0, 0, 0));
        assert!((100_000..120_000).contains(&told.exposure_millis), "{told:?}");
    }

    #[test]
    fn a_pause_is_neither_stall_nor_exposure() {
        let (mut rule, mut told) = (BufferStall::default(), Told::default());
        for (at, bl) in [(0, 6_000), (2_000, 6_000), (4_000, 6_000), (34_000, 8_000), (36_000, 8_000)] {
            rule.look(
                Look { at: 1_000_000 + at, bl, d: 2_000, rate: 1_000, starving: false, starting: false },
                &mut told,
            );
        }
        assert_eq!((told.stalled_millis, told.exposure_millis), (0, 6_000));
    }

    proptest! {
        #[test]
        fn stalls_of_an_ideal_player_are_found(loads in proptest::collection::vec(prop_oneof![4 => 300_u64..1_900, 1 => 2_500_u64..9_000], 20..80)) {
            let (stalled, ran, told) = play(&loads);
            // The last load is not followed by a request, so its stall is not known yet.
            let last = loads[loads.len() - 1];
            let wrong = stalled.abs_diff(told.stalled_millis);
            prop_assert!(wrong <= last + 300, "{stalled} told {told:?} of {ran}");
            prop_assert!(told.stalled_millis <= told.exposure_millis);
        }

        #[test]
        fn any_looks_are_bounded(looks in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>()), 0..60)) {
            let (mut rule, mut told) = (BufferStall::default(), Told::default());
            for (at, bl, d, rate, flag) in looks {
                rule.look(Look { at: at % 400_000, bl, d, rate, starving: flag, starting: !flag }, &mut told);
            }
        }
    }
}
