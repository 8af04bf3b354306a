//! Stall time of one viewer from its requests alone: time that went by and was not played was stalled. Decides what is
//! a stall and what a pause, a seek, a late request or rounding; refuses a stall where the buffer could not have run
//! dry.
//!
//! A player is behind by its *lag*: what the clock shows beyond what it played. It tells it (`ltc`), or the buffer
//! does: between two media requests of one object type it plays `bl + d - bl'`. While it plays the lag stays on a
//! level, about which the 100 ms rounding of `bl` lets it waver; a rise beyond the noise that stays is a stall or a
//! pause of that length, one that is gone with the next request was a request that came late. The level after it is
//! refined by the next requests, so that roundings do not add up.

use std::num::NonZeroU32;

use super::playback::PlaybackDelta;

/// One media request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferReading {
    /// When it was made, Unix milliseconds.
    pub(crate) at: u64,
    /// Buffer length.
    pub(crate) bl: u32,
    /// Duration of what is asked for.
    pub(crate) d: u32,
    /// Playback rate in thousandths.
    pub(crate) rate: u32,
    /// How far it is behind (`ltc`), where it says so.
    pub(crate) behind: Option<NonZeroU32>,
    /// Whether it, or a request of another type since the last one, carries `bs`, `sta=r` or `su`: the player says that
    /// its buffer runs or ran dry.
    pub(crate) starving: bool,
    /// Whether it may still be starting: `su`, or a state before playing.
    pub(crate) starting: bool,
    /// Whether it says that it plays.
    pub(crate) playing: bool,
}

/// What is remembered between two requests.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a sign of its own, and a viewer is kept small")]
pub(crate) struct BufferStall {
    at: u64,
    bl: u32,
    d: u32,
    behind: Option<NonZeroU32>,
    /// Milliseconds above the level; while starting: media consumed.
    excess: i32,
    /// Stall time found and not told yet; negative where too much was told.
    owed: i32,
    /// Exposure not told yet: what may have been a pause.
    withheld: i32,
    /// Where the lag stood below its level, at the last request; zero where it did not.
    dip: i32,
    /// When the buffer of the other type would have run dry by its last request: Unix milliseconds, their lowest 32
    /// bits.
    other_dry: u32,
    phase: Phase,
    /// Looks that the level is the mean of.
    looks: u8,
    starving: bool,
    starting: bool,
    stalled: bool,
    after_stall: bool,
    /// Whether what is withheld may have been a stall: the buffer could have run dry.
    could_be_stall: bool,
    /// Whether a request of the other type since the last look shows that its buffer could have run dry.
    dry_elsewhere: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    Starting,
    Playing,
    Paused,
    Hidden,
}

impl BufferStall {
    /// Folds a request; what it adds goes to `told`.
    pub(crate) fn look(&mut self, look: BufferReading, told: &mut PlaybackDelta) {
        let was = *self;
        let look = BufferReading { at: was.made_at(look), ..look };
        let Some(passed) = look.at.checked_sub(was.at).filter(|_| was.phase != Phase::New) else {
            // The first one, or one overtaken by a later one: a parallel fetch tells nothing of time.
            if was.phase == Phase::New {
                self.remember(look);
                let starts = !look.playing && (look.starting || look.bl == 0);
                self.phase = if starts { Phase::Starting } else { Phase::Playing };
            }
            return;
        };
        if matches!(was.phase, Phase::Paused | Phase::Hidden) {
            if was.phase == Phase::Paused {
                self.played_until(look, told);
            }
            self.phase = Phase::Playing;
            return self.remember(look);
        }
        self.remember(look);
        if passed > MAX_GAP_MILLIS {
            *self = Self { phase: Phase::Playing, ..Self::default() };
            return self.remember(look);
        }
        let passed = passed as i32;
        let unplayed = was.unplayed(look, passed);
        if was.phase == Phase::Starting && self.starts(was, look, (passed, unplayed), told) {
            return;
        }
        self.excess = was.excess.saturating_add(unplayed);
        let noise = if was.behind.is_some() && look.behind.is_some() { NOISE_BEHIND_MILLIS } else { NOISE_MILLIS };
        let mut due = passed;
        if self.excess < -noise && was.dip != 0 {
            // It stayed below: media was skipped, by a seek or a jump to the live edge.
            self.level(false);
            self.excess = was.excess.saturating_add(unplayed).saturating_sub(was.dip);
        }
        self.dip = 0;
        if self.excess > noise {
            due += self.rise(was, look, passed, told);
        } else {
            due += self.rest(noise);
        }
        self.tell(due, told);
    }

    /// A request of the type that the clock does not go by: a picture that is there stands still for a sound that is
    /// not.
    pub(crate) fn elsewhere(&mut self, at: u64, bl: u32, d: u32) {
        let at = at as u32;
        let dry = at.wrapping_add(bl);
        let overdue = at.wrapping_sub(self.other_dry).cast_signed() > -ROUNDING_MILLIS;
        let unplayed = dry.wrapping_sub(self.other_dry).wrapping_sub(d).cast_signed() > ROUNDING_MILLIS;
        let is_low = i64::from(bl) <= i64::from(d) + ROUNDING;
        self.dry_elsewhere |= self.other_dry != 0 && overdue && unplayed && is_low;
        // With nothing buffered it is not known since when: so it begins.
        self.other_dry = if bl == 0 { 0 } else { dry };
    }

    /// A request while the player is paused or in the background. Before a pause what was played counts; when a player
    /// was hidden is not known, so the time on both sides of it does not count.
    pub(crate) fn pause(&mut self, look: BufferReading, is_hidden: bool, told: &mut PlaybackDelta) {
        if !is_hidden && self.phase == Phase::Playing {
            self.played_until(look, told);
        }
        let phase = if is_hidden { Phase::Hidden } else { Phase::Paused };
        *self = Self { phase, owed: self.owed, other_dry: self.other_dry, ..Self::default() };
        self.remember(look);
    }

    /// Counts as exposure what was played since the last request, and no more than went by.
    fn played_until(&mut self, look: BufferReading, told: &mut PlaybackDelta) {
        if let Some(passed) = look.at.checked_sub(self.at).filter(|passed| *passed <= MAX_GAP_MILLIS) {
            let passed = passed as i32;
            let played = passed.saturating_sub(self.unplayed(look, passed)).clamp(0, passed);
            self.tell(played, told);
        }
    }

    /// When the request was made: where a player tells how far it is behind, what it played and what it did not are the
    /// time that went by; a request that came later was held up on its way.
    fn made_at(&self, look: BufferReading) -> u64 {
        let Some(fell_behind) = self.fell_behind(look).filter(|_| self.phase == Phase::Playing) else { return look.at };
        let made = self.at.saturating_add_signed((self.consumed(look) + fell_behind).max(0).into());
        if look.at > made.saturating_add(NOISE_MILLIS.unsigned_abs().into()) { made } else { look.at }
    }

    /// What of the time that passed was not played; below zero where media was skipped.
    fn unplayed(&self, look: BufferReading, passed: i32) -> i32 {
        self.fell_behind(look).unwrap_or_else(|| passed.saturating_sub(self.consumed(look)))
    }

    /// How much further behind it is than it was, by its own word.
    fn fell_behind(&self, look: BufferReading) -> Option<i32> {
        let (was, is) = (self.behind?, look.behind?);
        Some((i64::from(is.get()) - i64::from(was.get())).clamp(-MAX_STEP, MAX_STEP) as i32)
    }

    /// What it played since the last request, by its buffer.
    fn consumed(&self, look: BufferReading) -> i32 {
        let media = i64::from(self.bl) + i64::from(self.d) - i64::from(look.bl);
        (media * 1_000 / i64::from(look.rate.max(1))).clamp(-MAX_STEP, MAX_STEP) as i32
    }

    /// Counts what is played before the player surely plays; that begins with the first request that found a buffer.
    /// Gives whether it still starts.
    fn starts(
        &mut self,
        was: Self,
        look: BufferReading,
        (passed, unplayed): (i32, i32),
        told: &mut PlaybackDelta,
    ) -> bool {
        let consumed = passed.saturating_sub(unplayed);
        if was.bl == 0 && !look.playing && ((was.starting && look.starting) || consumed > passed + NOISE_MILLIS) {
            return true;
        }
        if was.bl == 0 && look.bl == 0 && !look.playing && was.looks == 0 {
            // The first object is not there yet: nothing of it was played.
            self.looks = 1;
            return true;
        }
        self.excess = 0;
        let calm = !was.starting && unplayed > START_SLACK_MILLIS;
        let is_low = i64::from(look.bl) <= i64::from(was.d) + ROUNDING;
        if was.bl > 0 && calm && consumed > 0 && is_low {
            // It had its start behind it and then ran dry.
            self.phase = Phase::Playing;
            return false;
        }
        let played = consumed.clamp(0, passed);
        told.exposure_millis += u64::from(played.unsigned_abs());
        self.withheld = 0;
        let so_far = was.excess.saturating_add(played);
        if look.playing || so_far >= STARTED_MILLIS || (!look.starting && so_far > NOISE_MILLIS) {
            self.phase = Phase::Playing;
        } else {
            self.excess = so_far;
        }
        true
    }

    /// The lag is above its level: a stall, a pause that is no exposure, or a late request. Gives what to add to the
    /// exposure.
    fn rise(&mut self, was: Self, look: BufferReading, passed: i32, told: &mut PlaybackDelta) -> i32 {
        let signed = look.starving || was.starving || was.stalled;
        let dry_after = i64::from(was.bl) - ROUNDING;
        let could_run_dry = was.dry_elsewhere || i64::from(passed.saturating_add(was.withheld)) >= dry_after;
        // Who ran dry has no more than one object afterwards, unless it said so and waits for more; in a pause the
        // buffer grows.
        let kept = if was.stalled || was.starving { i64::from(was.bl) } else { 0 };
        let is_low = was.dry_elsewhere || i64::from(look.bl) <= i64::from(was.d) + ROUNDING + kept;
        // With nothing buffered the position is not known, and with it how long it stalled: the next request shows it.
        let is_known = look.bl > 0 || look.behind.is_some();
        // A stall that was told goes on while nothing is played, and ends a little later than what was told in it.
        let goes_on = look.starving && was.starving && was.consumed(look) < NOISE_MILLIS;
        let resumes = was.stalled && (goes_on || self.excess <= NOISE_MILLIS);
        if resumes || (signed && could_run_dry && is_low && is_known) {
            self.stall(self.excess, told);
            return was.withheld;
        }
        if self.excess > passed.saturating_add(was.withheld).saturating_add(NOISE_MILLIS) {
            // More than went by: a seek back.
            self.withheld = 0;
            self.level(false);
            return was.withheld;
        }
        let stays = was.withheld > 0 && self.excess <= was.withheld.saturating_add(NOISE_MILLIS);
        if stays && (was.could_be_stall || (could_run_dry && is_low)) {
            // It plays on with its buffer as low as a stall leaves it, or shows so now where the request before came
            // late.
            self.stall(self.excess, told);
            return was.withheld;
        }
        // Not exposure until the next request shows what it was; if the rise was there already, it stays out.
        let more = self.excess.saturating_sub(was.withheld);
        if stays {
            self.withheld = 0;
            self.level(false);
        } else {
            self.withheld = self.excess;
            self.could_be_stall = could_run_dry && is_low && (was.withheld == 0 || was.could_be_stall);
        }
        -more
    }

    /// The lag is at its level, or below. Gives what to add to the exposure.
    fn rest(&mut self, noise: i32) -> i32 {
        // What was withheld was a late request.
        let back = std::mem::take(&mut self.withheld);
        if self.excess < -noise {
            self.dip = self.excess;
        } else {
            self.refine();
        }
        back
    }

    fn stall(&mut self, millis: i32, told: &mut PlaybackDelta) {
        self.owed = self.owed.saturating_add(millis);
        told.starts += u32::from(!self.stalled);
        self.withheld = 0;
        self.level(true);
    }

    fn level(&mut self, after_stall: bool) {
        (self.excess, self.looks, self.dip) = (0, 0, 0);
        (self.stalled, self.after_stall) = (after_stall, after_stall);
    }

    /// Moves the level towards the mean of what is looked at; after a stall, and where the buffer is all but empty,
    /// that is stall time.
    fn refine(&mut self) {
        self.stalled = false;
        self.looks = (self.looks + 1).min(MAX_LOOKS);
        // Roundings go both ways, but no request comes early: more than they make is a request that was a little late.
        let is_late = self.excess > LATE_MILLIS && self.looks > SURE_LOOKS;
        let weight = if is_late { LATE_WEIGHT } else { 1 };
        let shift = self.excess / ((i32::from(self.looks) + 1) * weight);
        self.excess -= shift;
        if (self.after_stall && self.looks < MAX_LOOKS) || self.bl <= NEARLY_EMPTY_MILLIS {
            self.owed = self.owed.saturating_add(shift);
        }
    }

    /// Tells exposure, and what is owed of it as stalled.
    fn tell(&mut self, due: i32, told: &mut PlaybackDelta) {
        let due = due.max(0);
        let now = self.owed.clamp(0, due);
        self.owed -= now;
        told.exposure_millis += u64::from(due.unsigned_abs());
        told.stalled_millis += u64::from(now.unsigned_abs());
    }

    fn remember(&mut self, look: BufferReading) {
        (self.at, self.bl, self.d, self.behind) = (look.at, look.bl, look.d, look.behind);
        (self.starving, self.starting, self.dry_elsewhere) = (look.starving, look.starting, false);
    }
}

/// How far the excess may waver: two roundings to 100 ms and the jitter of request times.
pub(crate) const NOISE_MILLIS: i32 = 200;
/// The same where the player tells how far it is behind, to the millisecond.
const NOISE_BEHIND_MILLIS: i32 = 15;
/// A viewer without a request for so long may have done anything in between; nothing is said of it.
pub(crate) const MAX_GAP_MILLIS: u64 = 120_000;
/// What two roundings of `bl` and some jitter make.
const ROUNDING_MILLIS: i32 = 150;
const ROUNDING: i64 = ROUNDING_MILLIS as i64;
const MAX_LOOKS: u8 = 16;
/// Looks after which a level is one.
const SURE_LOOKS: u8 = 4;
/// Most that roundings make of one request's excess.
const LATE_MILLIS: i32 = 100;
/// How much less a request that is later than that moves the level.
const LATE_WEIGHT: i32 = 4;
/// A buffer so short that every small rise of the lag is a stall.
const NEARLY_EMPTY_MILLIS: u32 = 100;
/// A player that has played so much has started.
const STARTED_MILLIS: i32 = 1_000;
/// How long after its start seemed over a player may still wait for its first picture.
const START_SLACK_MILLIS: i32 = 500;
/// Most media that one step is believed to consume.
const MAX_STEP: i64 = 600_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A player with segments of 2 s behind a link that takes `load` to carry each: the ideal of the derivation.
    fn play(loads: &[u64]) -> (u64, u64, PlaybackDelta) {
        let (mut clock, mut head, mut position, mut stalled) = (1_000_000_u64, 0_u64, 0_u64, 0_u64);
        let (mut rule, mut told, mut dry) = (BufferStall::default(), PlaybackDelta::default(), false);
        let began = clock;
        for load in loads {
            // Plays while the segment loads.
            let bl = head - position;
            let rounded = (bl + 50) / 100 * 100;
            let look = BufferReading {
                at: clock,
                bl: rounded as u32,
                d: 2_000,
                rate: 1_000,
                starving: dry,
                starting: head == 0,
                behind: None,
                playing: false,
            };
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
        let (mut rule, mut told) = (BufferStall::default(), PlaybackDelta::default());
        for (at, bl) in [(0, 6_000), (2_000, 6_000), (4_000, 6_000), (34_000, 8_000), (36_000, 8_000)] {
            rule.look(
                BufferReading {
                    at: 1_000_000 + at,
                    bl,
                    d: 2_000,
                    rate: 1_000,
                    starving: false,
                    starting: false,
                    behind: None,
                    playing: false,
                },
                &mut told,
            );
        }
        assert_eq!((told.stalled_millis, told.exposure_millis), (0, 6_000));
    }

    /// Told of requests `(at, bl, starving, behind)`.
    fn told(requests: &[(u64, u32, bool, u32)]) -> PlaybackDelta {
        let (mut rule, mut told) = (BufferStall::default(), PlaybackDelta::default());
        for (at, bl, starving, behind) in requests {
            let (at, behind) = (1_000_000 + at, NonZeroU32::new(*behind));
            let look = BufferReading {
                at,
                bl: *bl,
                d: 2_000,
                rate: 1_000,
                behind,
                starving: *starving,
                starting: false,
                playing: false,
            };
            rule.look(look, &mut told);
        }
        told
    }

    #[test]
    fn a_request_that_came_late_is_neither_stall_nor_pause() {
        // Sent at 6 s through a link that was silent until 13 s.
        let told = told(&[
            (0, 9_000, false, 0),
            (2_000, 9_000, false, 0),
            (4_000, 9_000, false, 0),
            (13_000, 9_000, false, 0),
            (13_200, 3_800, false, 0),
            (13_300, 5_700, false, 0),
        ]);
        assert_eq!((told.stalled_millis, told.exposure_millis), (0, 13_300));
    }

    #[test]
    fn a_stall_without_a_sign_is_found_with_the_next_request() {
        let quiet = [(0, 500, false, 0), (2_000, 500, false, 0), (5_000, 500, false, 0), (7_000, 500, false, 0)];
        let told_then = told(&quiet[..3]);
        assert_eq!((told_then.stalled_millis, told_then.exposure_millis), (0, 4_000));
        let told = told(&quiet);
        assert_eq!((told.stalled_millis, told.exposure_millis, told.starts), (1_000, 7_000, 1));
    }

    #[test]
    fn a_seek_back_or_to_the_live_edge_is_exposure() {
        let back =
            told(&[(0, 6_000, false, 0), (2_000, 6_000, false, 0), (4_000, 9_000, false, 0), (6_000, 9_000, false, 0)]);
        let edge =
            told(&[(0, 9_000, false, 0), (2_000, 9_000, false, 0), (4_000, 3_000, false, 0), (6_000, 3_000, false, 0)]);
        assert_eq!((back.stalled_millis, back.exposure_millis), (0, 6_000));
        assert_eq!((edge.stalled_millis, edge.exposure_millis), (0, 6_000));
    }

    #[test]
    fn what_a_player_says_of_its_lag_is_exact() {
        let told = told(&[
            (0, 300, false, 3_012),
            (2_400, 100, false, 3_012),
            (5_000, 600, true, 4_063),
            (7_000, 600, false, 4_064),
        ]);
        assert_eq!((told.stalled_millis, told.exposure_millis), (1_051, 7_000));
    }

    #[test]
    fn a_stall_behind_a_request_that_came_late_is_told_by_the_lag() {
        // Made at 4 s, through a link that was silent until 13.3 s; the buffer ran dry at 8.5 s.
        let told = told(&[
            (0, 4_500, false, 9_352),
            (2_000, 4_500, false, 9_352),
            (13_300, 4_500, false, 9_352),
            (13_400, 2_000, true, 14_252),
            (13_450, 4_000, false, 14_302),
        ]);
        assert_eq!((told.stalled_millis, told.exposure_millis, told.starts), (4_950, 13_450, 1));
    }

    #[test]
    fn a_stall_behind_a_request_that_came_late_is_told_by_the_next_buffer() {
        // The same without a word of the lag, and asked for anew when the stall was over.
        let told = told(&[
            (0, 5_800, false, 0),
            (2_000, 5_800, false, 0),
            (14_000, 5_800, false, 0),
            (15_000, 1_100, false, 0),
            (15_100, 3_000, false, 0),
        ]);
        assert_eq!((told.stalled_millis, told.exposure_millis, told.starts), (4_300, 15_100, 1));
    }

    #[test]
    fn what_was_told_while_it_stalled_is_not_its_end() {
        // The object is there at 6 s, and the picture a second later.
        let told = told(&[
            (0, 1_000, false, 0),
            (2_000, 1_000, false, 0),
            (6_000, 2_000, true, 0),
            (7_000, 4_000, true, 0),
            (8_000, 5_000, false, 0),
        ]);
        assert_eq!((told.stalled_millis, told.exposure_millis, told.starts), (4_000, 8_000, 1));
    }

    #[test]
    fn a_picture_stands_still_for_a_sound_that_is_not_there() {
        let (mut rule, mut told) = (BufferStall::default(), PlaybackDelta::default());
        let look = |at: u64, bl| BufferReading {
            at: 1_000_000 + at,
            bl,
            d: 2_000,
            rate: 1_000,
            starving: at > 4_000,
            starting: false,
            behind: None,
            playing: false,
        };
        rule.look(look(0, 6_000), &mut told);
        rule.elsewhere(1_000_100, 1_000, 2_000);
        rule.look(look(2_000, 6_000), &mut told);
        rule.elsewhere(1_005_000, 100, 2_000);
        rule.look(look(5_100, 6_900), &mut told);
        assert_eq!((told.stalled_millis, told.exposure_millis), (2_000, 5_100));
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
            let (mut rule, mut told) = (BufferStall::default(), PlaybackDelta::default());
            for (at, bl, d, rate, flag) in looks {
                rule.look(BufferReading { at: at % 400_000, bl, d, rate, starving: flag, starting: !flag, behind: None, playing: false }, &mut told);
            }
        }
    }
}
