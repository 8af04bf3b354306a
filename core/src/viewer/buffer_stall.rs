//! Stall time of one viewer from its requests alone: time that passed without being played was stalled. Decides what is
//! a stall and what a pause, a seek, a late request or rounding. Where the buffer could not have run dry there is no
//! stall.
//!
//! A player's *lag* is the time that passed beyond what it played. The player reports it as live latency (`ltc`), or
//! the buffer implies it: between two media requests of one object type it plays `bl + d - bl'`. While it plays, the
//! lag stays at a level, around which the rounding of `bl` to 100 ms lets it vary. A rise beyond that noise that stays
//! is a stall or a pause of that length; one that is gone with the next request was a late request. The next requests
//! then refine the new level, so that roundings do not add up.

use std::num::NonZeroU32;

use super::delta::PlaybackDelta;

/// One media request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferReading {
    /// When it was made, Unix milliseconds.
    pub(crate) at: u64,
    /// Buffer length before the request (CMCD `bl`), ms.
    pub(crate) bl: u32,
    /// Duration of the requested object (CMCD `d`), ms.
    pub(crate) d: u32,
    /// Playback rate in thousandths.
    pub(crate) rate: u32,
    /// Live latency (CMCD `ltc`), ms, where the player reports it.
    pub(crate) latency: Option<NonZeroU32>,
    /// Whether it, or a request of another type since the last one, carries `bs`, `sta=r` or `su`: the player reports
    /// that its buffer is or was dry.
    pub(crate) starving: bool,
    /// Whether the player may still be starting: `su`, or a state before playing.
    pub(crate) starting: bool,
    /// Whether the player reports that it plays.
    pub(crate) playing: bool,
}

/// The state between two requests.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a sign of its own, and a viewer is kept small")]
pub(crate) struct BufferStall {
    at: u64,
    bl: u32,
    d: u32,
    latency: Option<NonZeroU32>,
    /// Lag above its level, ms; while starting: media consumed, ms.
    excess: i32,
    /// Stall time found and not reported yet, ms; negative where too much was reported.
    unreported_stall: i32,
    /// Exposure not reported yet because it may have been a pause, ms.
    withheld: i32,
    /// How far the lag was below its level at the last request, ms; zero where it was not.
    dip: i32,
    /// When the buffer of the other object type would have run dry by its last request: lowest 32 bits of Unix
    /// milliseconds.
    other_dry_at: u32,
    phase: Phase,
    /// Number of readings that the level is the mean of.
    readings: u8,
    starving: bool,
    starting: bool,
    stalled: bool,
    after_stall: bool,
    /// Whether the withheld time may have been a stall: the buffer could have run dry.
    could_be_stall: bool,
    /// Whether a request of the other type since the last reading shows that its buffer could have run dry.
    other_track_dry: bool,
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
    /// Folds a request and adds what it shows to `delta`.
    pub(crate) fn update(&mut self, reading: BufferReading, delta: &mut PlaybackDelta) {
        let previous = *self;
        let reading = BufferReading { at: previous.request_time(reading), ..reading };
        let Some(passed) = reading.at.checked_sub(previous.at).filter(|_| previous.phase != Phase::New) else {
            // The first request, or one overtaken by a later one: parallel fetches do not measure time.
            if previous.phase == Phase::New {
                self.remember(reading);
                let starts = !reading.playing && (reading.starting || reading.bl == 0);
                self.phase = if starts { Phase::Starting } else { Phase::Playing };
            }
            return;
        };
        if matches!(previous.phase, Phase::Paused | Phase::Hidden) {
            if previous.phase == Phase::Paused {
                self.played_until(reading, delta);
            }
            self.phase = Phase::Playing;
            return self.remember(reading);
        }
        self.remember(reading);
        if passed > MAX_GAP_MILLIS {
            *self = Self { phase: Phase::Playing, ..Self::default() };
            return self.remember(reading);
        }
        let passed = passed as i32;
        let unplayed = previous.unplayed(reading, passed);
        if previous.phase == Phase::Starting && self.still_starting(previous, reading, (passed, unplayed), delta) {
            return;
        }
        self.excess = previous.excess.saturating_add(unplayed);
        let noise =
            if previous.latency.is_some() && reading.latency.is_some() { NOISE_LATENCY_MILLIS } else { NOISE_MILLIS };
        let mut exposure = passed;
        if self.excess < -noise && previous.dip != 0 {
            // It stayed below the level: media was skipped, by a seek or a jump to the live edge.
            self.reset_level(false);
            self.excess = previous.excess.saturating_add(unplayed).saturating_sub(previous.dip);
        }
        self.dip = 0;
        if self.excess > noise {
            exposure += self.above_level(previous, reading, passed, delta);
        } else {
            exposure += self.at_or_below_level(noise);
        }
        self.report(exposure, delta);
    }

    /// Folds a request of the object type that is not measured: playback also stops when the other type's buffer is
    /// dry.
    pub(crate) fn other_track(&mut self, at: u64, bl: u32, d: u32) {
        let at = at as u32;
        let dry = at.wrapping_add(bl);
        let overdue = at.wrapping_sub(self.other_dry_at).cast_signed() > -ROUNDING_MILLIS;
        let unplayed = dry.wrapping_sub(self.other_dry_at).wrapping_sub(d).cast_signed() > ROUNDING_MILLIS;
        let is_low = i64::from(bl) <= i64::from(d) + ROUNDING;
        self.other_track_dry |= self.other_dry_at != 0 && overdue && unplayed && is_low;
        // With an empty buffer it is not known since when; the measurement begins again.
        self.other_dry_at = if bl == 0 { 0 } else { dry };
    }

    /// Folds a request of a player that is paused or in the background. Before a pause, what was played counts. When a
    /// player went to the background is not known, so the time on either side of that request does not count.
    pub(crate) fn pause(&mut self, reading: BufferReading, is_hidden: bool, delta: &mut PlaybackDelta) {
        if !is_hidden && self.phase == Phase::Playing {
            self.played_until(reading, delta);
        }
        let phase = if is_hidden { Phase::Hidden } else { Phase::Paused };
        *self =
            Self { phase, unreported_stall: self.unreported_stall, other_dry_at: self.other_dry_at, ..Self::default() };
        self.remember(reading);
    }

    /// Counts as exposure what was played since the last request, at most the time that passed.
    fn played_until(&mut self, reading: BufferReading, delta: &mut PlaybackDelta) {
        if let Some(passed) = reading.at.checked_sub(self.at).filter(|passed| *passed <= MAX_GAP_MILLIS) {
            let passed = passed as i32;
            let played = passed.saturating_sub(self.unplayed(reading, passed)).clamp(0, passed);
            self.report(played, delta);
        }
    }

    /// When the request was made. Where a player reports its live latency, the time that passed is what it played plus
    /// what it fell behind; a request that arrived later was held up on its way.
    fn request_time(&self, reading: BufferReading) -> u64 {
        let Some(latency_increase) = self.latency_increase(reading).filter(|_| self.phase == Phase::Playing) else {
            return reading.at;
        };
        let made = self.at.saturating_add_signed((self.consumed(reading) + latency_increase).max(0).into());
        if reading.at > made.saturating_add(NOISE_MILLIS.unsigned_abs().into()) { made } else { reading.at }
    }

    /// How much of the passed time was not played, ms; negative where media was skipped.
    fn unplayed(&self, reading: BufferReading, passed: i32) -> i32 {
        self.latency_increase(reading).unwrap_or_else(|| passed.saturating_sub(self.consumed(reading)))
    }

    /// How much the reported live latency rose, ms.
    fn latency_increase(&self, reading: BufferReading) -> Option<i32> {
        let (previous, is) = (self.latency?, reading.latency?);
        Some((i64::from(is.get()) - i64::from(previous.get())).clamp(-MAX_STEP, MAX_STEP) as i32)
    }

    /// Media played since the last request by the buffer, ms of playing time.
    fn consumed(&self, reading: BufferReading) -> i32 {
        let media = i64::from(self.bl) + i64::from(self.d) - i64::from(reading.bl);
        (media * 1_000 / i64::from(reading.rate.max(1))).clamp(-MAX_STEP, MAX_STEP) as i32
    }

    /// Counts what is played until the player has certainly started; that begins with the first request that found a
    /// buffer. Returns whether it is still starting.
    fn still_starting(
        &mut self,
        previous: Self,
        reading: BufferReading,
        (passed, unplayed): (i32, i32),
        delta: &mut PlaybackDelta,
    ) -> bool {
        let consumed = passed.saturating_sub(unplayed);
        if previous.bl == 0
            && !reading.playing
            && ((previous.starting && reading.starting) || consumed > passed + NOISE_MILLIS)
        {
            return true;
        }
        if previous.bl == 0 && reading.bl == 0 && !reading.playing && previous.readings == 0 {
            // The first object has not arrived: nothing of it was played.
            self.readings = 1;
            return true;
        }
        self.excess = 0;
        let started_before = !previous.starting && unplayed > START_SLACK_MILLIS;
        let is_low = i64::from(reading.bl) <= i64::from(previous.d) + ROUNDING;
        if previous.bl > 0 && started_before && consumed > 0 && is_low {
            // It had started before and then ran dry.
            self.phase = Phase::Playing;
            return false;
        }
        let played = consumed.clamp(0, passed);
        delta.exposure_millis += u64::from(played.unsigned_abs());
        self.withheld = 0;
        let so_far = previous.excess.saturating_add(played);
        if reading.playing || so_far >= STARTED_MILLIS || (!reading.starting && so_far > NOISE_MILLIS) {
            self.phase = Phase::Playing;
        } else {
            self.excess = so_far;
        }
        true
    }

    /// The lag is above its level: a stall, a pause (no exposure), or a late request. Returns what to add to the
    /// exposure, ms.
    fn above_level(&mut self, previous: Self, reading: BufferReading, passed: i32, delta: &mut PlaybackDelta) -> i32 {
        let has_sign = reading.starving || previous.starving || previous.stalled;
        let dry_after = i64::from(previous.bl) - ROUNDING;
        let could_run_dry =
            previous.other_track_dry || i64::from(passed.saturating_add(previous.withheld)) >= dry_after;
        // After running dry a player has at most one object, unless it reported that and waits for more; during a pause
        // the buffer grows.
        let kept = if previous.stalled || previous.starving { i64::from(previous.bl) } else { 0 };
        let is_low = previous.other_track_dry || i64::from(reading.bl) <= i64::from(previous.d) + ROUNDING + kept;
        // With an empty buffer the position is not known, nor how long it has stalled: the next request shows it.
        let is_known = reading.bl > 0 || reading.latency.is_some();
        // A reported stall continues while nothing is played, and may end a little later than reported.
        let goes_on = reading.starving && previous.starving && previous.consumed(reading) < NOISE_MILLIS;
        let resumes = previous.stalled && (goes_on || self.excess <= NOISE_MILLIS);
        if resumes || (has_sign && could_run_dry && is_low && is_known) {
            self.stall(self.excess, delta);
            return previous.withheld;
        }
        if self.excess > passed.saturating_add(previous.withheld).saturating_add(NOISE_MILLIS) {
            // More than the time that passed: a seek back.
            self.withheld = 0;
            self.reset_level(false);
            return previous.withheld;
        }
        let stays = previous.withheld > 0 && self.excess <= previous.withheld.saturating_add(NOISE_MILLIS);
        if stays && (previous.could_be_stall || (could_run_dry && is_low)) {
            // It plays on with a buffer as low as a stall leaves it, or shows that now where the previous request was
            // late.
            self.stall(self.excess, delta);
            return previous.withheld;
        }
        // Not exposure until the next request shows what it was; a rise that was there before stays out.
        let more = self.excess.saturating_sub(previous.withheld);
        if stays {
            self.withheld = 0;
            self.reset_level(false);
        } else {
            self.withheld = self.excess;
            self.could_be_stall = could_run_dry && is_low && (previous.withheld == 0 || previous.could_be_stall);
        }
        -more
    }

    /// The lag is at its level or below. Returns what to add to the exposure, ms.
    fn at_or_below_level(&mut self, noise: i32) -> i32 {
        // The withheld time was a late request.
        let back = std::mem::take(&mut self.withheld);
        if self.excess < -noise {
            self.dip = self.excess;
        } else {
            self.refine();
        }
        back
    }

    fn stall(&mut self, millis: i32, delta: &mut PlaybackDelta) {
        self.unreported_stall = self.unreported_stall.saturating_add(millis);
        delta.starts += u32::from(!self.stalled);
        self.withheld = 0;
        self.reset_level(true);
    }

    fn reset_level(&mut self, after_stall: bool) {
        (self.excess, self.readings, self.dip) = (0, 0, 0);
        (self.stalled, self.after_stall) = (after_stall, after_stall);
    }

    /// Moves the level towards the mean of the readings; after a stall, or with a nearly empty buffer, the difference
    /// is stall time.
    fn refine(&mut self) {
        self.stalled = false;
        self.readings = (self.readings + 1).min(MAX_READINGS);
        // Roundings go both ways, but no request arrives early: a larger excess than roundings make is a late request.
        let is_late = self.excess > LATE_MILLIS && self.readings > SETTLED_READINGS;
        let weight = if is_late { LATE_WEIGHT } else { 1 };
        let shift = self.excess / ((i32::from(self.readings) + 1) * weight);
        self.excess -= shift;
        if (self.after_stall && self.readings < MAX_READINGS) || self.bl <= NEARLY_EMPTY_MILLIS {
            self.unreported_stall = self.unreported_stall.saturating_add(shift);
        }
    }

    /// Reports exposure, and of it as stalled what is not reported yet.
    fn report(&mut self, exposure: i32, delta: &mut PlaybackDelta) {
        let exposure = exposure.max(0);
        let now = self.unreported_stall.clamp(0, exposure);
        self.unreported_stall -= now;
        delta.exposure_millis += u64::from(exposure.unsigned_abs());
        delta.stalled_millis += u64::from(now.unsigned_abs());
    }

    fn remember(&mut self, reading: BufferReading) {
        (self.at, self.bl, self.d, self.latency) = (reading.at, reading.bl, reading.d, reading.latency);
        (self.starving, self.starting, self.other_track_dry) = (reading.starving, reading.starting, false);
    }
}

/// How far the excess varies without a cause: two roundings to 100 ms and the jitter of request times.
pub(crate) const NOISE_MILLIS: i32 = 200;
/// The same where the player reports its live latency, in milliseconds.
const NOISE_LATENCY_MILLIS: i32 = 15;
/// After a longer gap between requests the viewer may have done anything: nothing is counted.
pub(crate) const MAX_GAP_MILLIS: u64 = 120_000;
/// Two roundings of `bl` and some jitter.
const ROUNDING_MILLIS: i32 = 150;
const ROUNDING: i64 = ROUNDING_MILLIS as i64;
const MAX_READINGS: u8 = 16;
/// Readings after which a level is settled.
const SETTLED_READINGS: u8 = 4;
/// The largest excess of one request that roundings alone make.
const LATE_MILLIS: i32 = 100;
/// How much less such a late request moves the level.
const LATE_WEIGHT: i32 = 4;
/// With a buffer this short every small rise of the lag is a stall.
const NEARLY_EMPTY_MILLIS: u32 = 100;
/// A player that has played this much has started.
const STARTED_MILLIS: i32 = 1_000;
/// How long a player may still wait for its first picture after it seems to have started.
const START_SLACK_MILLIS: i32 = 500;
/// The most media that one step may consume, ms.
const MAX_STEP: i64 = 600_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An ideal player with segments of 2 s, behind a link that takes `load` ms for each.
    fn play(loads: &[u64]) -> (u64, u64, PlaybackDelta) {
        let (mut clock, mut head, mut position, mut stalled) = (1_000_000_u64, 0_u64, 0_u64, 0_u64);
        let (mut rule, mut delta, mut dry) = (BufferStall::default(), PlaybackDelta::default(), false);
        let began = clock;
        for load in loads {
            // It plays while the segment loads.
            let bl = head - position;
            let rounded = (bl + 50) / 100 * 100;
            let reading = BufferReading {
                at: clock,
                bl: rounded as u32,
                d: 2_000,
                rate: 1_000,
                starving: dry,
                starting: head == 0,
                latency: None,
                playing: false,
            };
            rule.update(reading, &mut delta);
            let played = if head == 0 { 0 } else { bl.min(*load) };
            dry = head > 0 && *load > bl;
            stalled += if dry { load - bl } else { 0 };
            position += played;
            clock += load;
            head += 2_000;
        }
        (stalled, clock - began, delta)
    }

    #[test]
    fn a_steady_player_has_no_stall() {
        let (stalled, _, delta) = play(&[1_990; 60]);
        assert_eq!((stalled, delta.stalled_millis, delta.starts), (0, 0, 0));
        assert!((100_000..120_000).contains(&delta.exposure_millis), "{delta:?}");
    }

    #[test]
    fn a_pause_is_neither_stall_nor_exposure() {
        let (mut rule, mut delta) = (BufferStall::default(), PlaybackDelta::default());
        for (at, bl) in [(0, 6_000), (2_000, 6_000), (4_000, 6_000), (34_000, 8_000), (36_000, 8_000)] {
            rule.update(
                BufferReading {
                    at: 1_000_000 + at,
                    bl,
                    d: 2_000,
                    rate: 1_000,
                    starving: false,
                    starting: false,
                    latency: None,
                    playing: false,
                },
                &mut delta,
            );
        }
        assert_eq!((delta.stalled_millis, delta.exposure_millis), (0, 6_000));
    }

    /// The delta of requests `(at, bl, starving, latency)`.
    fn delta(requests: &[(u64, u32, bool, u32)]) -> PlaybackDelta {
        let (mut rule, mut delta) = (BufferStall::default(), PlaybackDelta::default());
        for (at, bl, starving, latency) in requests {
            let (at, latency) = (1_000_000 + at, NonZeroU32::new(*latency));
            let reading = BufferReading {
                at,
                bl: *bl,
                d: 2_000,
                rate: 1_000,
                latency,
                starving: *starving,
                starting: false,
                playing: false,
            };
            rule.update(reading, &mut delta);
        }
        delta
    }

    #[test]
    fn a_late_request_is_neither_stall_nor_pause() {
        // Sent at 6 s through a link that was silent until 13 s.
        let delta = delta(&[
            (0, 9_000, false, 0),
            (2_000, 9_000, false, 0),
            (4_000, 9_000, false, 0),
            (13_000, 9_000, false, 0),
            (13_200, 3_800, false, 0),
            (13_300, 5_700, false, 0),
        ]);
        assert_eq!((delta.stalled_millis, delta.exposure_millis), (0, 13_300));
    }

    #[test]
    fn an_unreported_stall_is_found_with_the_next_request() {
        let unsigned = [(0, 500, false, 0), (2_000, 500, false, 0), (5_000, 500, false, 0), (7_000, 500, false, 0)];
        let delta_then = delta(&unsigned[..3]);
        assert_eq!((delta_then.stalled_millis, delta_then.exposure_millis), (0, 4_000));
        let delta = delta(&unsigned);
        assert_eq!((delta.stalled_millis, delta.exposure_millis, delta.starts), (1_000, 7_000, 1));
    }

    #[test]
    fn a_seek_back_or_to_the_live_edge_is_exposure() {
        let back = delta(&[
            (0, 6_000, false, 0),
            (2_000, 6_000, false, 0),
            (4_000, 9_000, false, 0),
            (6_000, 9_000, false, 0),
        ]);
        let edge = delta(&[
            (0, 9_000, false, 0),
            (2_000, 9_000, false, 0),
            (4_000, 3_000, false, 0),
            (6_000, 3_000, false, 0),
        ]);
        assert_eq!((back.stalled_millis, back.exposure_millis), (0, 6_000));
        assert_eq!((edge.stalled_millis, edge.exposure_millis), (0, 6_000));
    }

    #[test]
    fn reported_latency_is_exact() {
        let delta = delta(&[
            (0, 300, false, 3_012),
            (2_400, 100, false, 3_012),
            (5_000, 600, true, 4_063),
            (7_000, 600, false, 4_064),
        ]);
        assert_eq!((delta.stalled_millis, delta.exposure_millis), (1_051, 7_000));
    }

    #[test]
    fn a_stall_hidden_by_a_late_request_is_found_by_the_latency() {
        // Made at 4 s, through a link that was silent until 13.3 s; the buffer ran dry at 8.5 s.
        let delta = delta(&[
            (0, 4_500, false, 9_352),
            (2_000, 4_500, false, 9_352),
            (13_300, 4_500, false, 9_352),
            (13_400, 2_000, true, 14_252),
            (13_450, 4_000, false, 14_302),
        ]);
        assert_eq!((delta.stalled_millis, delta.exposure_millis, delta.starts), (4_950, 13_450, 1));
    }

    #[test]
    fn a_stall_hidden_by_a_late_request_is_found_by_the_next_buffer() {
        // The same without a reported latency, and requested again when the stall was over.
        let delta = delta(&[
            (0, 5_800, false, 0),
            (2_000, 5_800, false, 0),
            (14_000, 5_800, false, 0),
            (15_000, 1_100, false, 0),
            (15_100, 3_000, false, 0),
        ]);
        assert_eq!((delta.stalled_millis, delta.exposure_millis, delta.starts), (4_300, 15_100, 1));
    }

    #[test]
    fn a_request_during_a_stall_does_not_end_it() {
        // The object arrives at 6 s, and the picture a second later.
        let delta = delta(&[
            (0, 1_000, false, 0),
            (2_000, 1_000, false, 0),
            (6_000, 2_000, true, 0),
            (7_000, 4_000, true, 0),
            (8_000, 5_000, false, 0),
        ]);
        assert_eq!((delta.stalled_millis, delta.exposure_millis, delta.starts), (4_000, 8_000, 1));
    }

    #[test]
    fn video_stalls_while_audio_is_missing() {
        let (mut rule, mut delta) = (BufferStall::default(), PlaybackDelta::default());
        let reading = |at: u64, bl| BufferReading {
            at: 1_000_000 + at,
            bl,
            d: 2_000,
            rate: 1_000,
            starving: at > 4_000,
            starting: false,
            latency: None,
            playing: false,
        };
        rule.update(reading(0, 6_000), &mut delta);
        rule.other_track(1_000_100, 1_000, 2_000);
        rule.update(reading(2_000, 6_000), &mut delta);
        rule.other_track(1_005_000, 100, 2_000);
        rule.update(reading(5_100, 6_900), &mut delta);
        assert_eq!((delta.stalled_millis, delta.exposure_millis), (2_000, 5_100));
    }

    proptest! {
        #[test]
        fn stalls_of_an_ideal_player_are_found(loads in proptest::collection::vec(prop_oneof![4 => 300_u64..1_900, 1 => 2_500_u64..9_000], 20..80)) {
            let (stalled, ran, delta) = play(&loads);
            // No request follows the last load, so its stall is not known yet.
            let last = loads[loads.len() - 1];
            let wrong = stalled.abs_diff(delta.stalled_millis);
            prop_assert!(wrong <= last + 300, "{stalled} stalled, {delta:?} of {ran}");
            prop_assert!(delta.stalled_millis <= delta.exposure_millis);
        }

        #[test]
        fn any_readings_are_bounded(readings in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>()), 0..60)) {
            let (mut rule, mut delta) = (BufferStall::default(), PlaybackDelta::default());
            for (at, bl, d, rate, flag) in readings {
                rule.update(BufferReading { at: at % 400_000, bl, d, rate, starving: flag, starting: !flag, latency: None, playing: false }, &mut delta);
            }
        }
    }
}
