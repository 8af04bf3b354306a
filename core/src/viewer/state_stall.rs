//! Stall time of one viewer from the states that its event reports tell (CTA-5004-B `ps`), by the player's own clock.
//! Decides in which order reports count and what a state is; takes back what was counted on when a late report says
//! otherwise, refuses reports twice.

use std::num::NonZeroU32;

use super::playback::PlaybackDelta;
use crate::cmcd::State;

/// The state machine of event reports. Instants are milliseconds since [`PlayerStateClock::base`], by the player's
/// clock where not said otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlayerStateClock {
    /// Zero of all instants below, Unix milliseconds.
    base: u64,
    /// Up to when its state is counted.
    to: u32,
    /// When its state began.
    since: u32,
    /// Its newest instant.
    newest: u32,
    /// What our clock shows beyond its own, delivery in: the least that was seen.
    skew: i32,
    next_sn: Option<NonZeroU32>,
    /// Reports that say nothing of its state and came before others that should have come before them.
    ahead: u16,
    held: [Option<Report>; MAX_HELD],
    /// Total stall time it last told, plus one, and what was counted since.
    absolute: Option<NonZeroU32>,
    counted: i32,
    /// Counted and not told yet; negative where too much was told.
    owed_exposure: i32,
    owed_stalled: i32,
    state: Option<State>,
    played: bool,
    hidden: bool,
    gap: bool,
}

/// A report within the clock.
#[derive(Clone, Copy, Debug)]
struct Report {
    ts: u32,
    /// When it arrived here by our clock.
    arrived: u32,
    speaks: bool,
    sn: u32,
    absolute: Option<NonZeroU32>,
    state: Option<State>,
    hidden: Option<bool>,
}

impl PlayerStateClock {
    /// Whether a state was ever told.
    pub(crate) const fn has_state(&self) -> bool {
        self.state.is_some()
    }

    /// Takes a report of the instant `ts` that arrived at `at`, both Unix milliseconds.
    pub(crate) fn report(
        &mut self,
        (at, ts): (u64, u64),
        sn: Option<u32>,
        told: &mut PlaybackDelta,
        says: StateReport,
    ) {
        if self.base == 0 {
            self.base = ts.saturating_sub(MAX_BACK_MILLIS);
            self.skew = skew_of(at, ts);
        }
        let skew = skew_of(at, ts);
        if self.skew.abs_diff(skew) > MAX_STATE_MILLIS && says.speaks {
            // A clock was set, or the report is of another time: what went by meanwhile is not known.
            let ts = self.within(ts);
            (self.skew, self.to, self.since, self.newest) = (skew, ts, ts, ts);
        }
        let report = Report {
            ts: self.within(ts),
            arrived: self.within(at),
            speaks: says.speaks,
            sn: sn.unwrap_or(0),
            absolute: says.absolute.map(after),
            state: says.state,
            hidden: says.hidden,
        };
        self.take(report, sn, told);
        if says.speaks {
            self.newest = self.newest.max(report.ts);
            self.skew = self.skew.min(skew);
        }
    }

    /// Counts on with the present state. `now`, and `asked`, when the viewer made its last request, are Unix
    /// milliseconds of our clock; `last`: nothing more will come.
    pub(crate) fn sweep(&mut self, now: u64, asked: u64, last: bool, told: &mut PlaybackDelta) {
        if self.state.is_none() {
            return;
        }
        let now_within = self.within(now);
        let waits_long = |held: &Report| now_within.saturating_sub(held.arrived) > LATENESS_MILLIS;
        if last || self.held.iter().flatten().any(waits_long) {
            self.release(told);
        } else if self.held.iter().any(Option::is_some) {
            // What is missing may be another state.
            return;
        }
        // A viewer that plays makes requests; only one that stalls may be silent and still be believed.
        let late = u64::from(LATENESS_MILLIS);
        let believed = if self.state == Some(State::Rebuffering) { OPEN_MILLIS } else { late };
        // A report that comes late speaks for its own time, not for when it came.
        let own = self.base.saturating_add(self.newest.into()).saturating_add_signed(self.skew.into());
        let heard = own.max(asked);
        let until = if last { heard } else { now.min(heard.saturating_add(believed)).saturating_sub(late) };
        let to = self.within(until.saturating_add_signed(-i64::from(self.skew)));
        if to > self.to {
            self.count(to);
            self.settle(told);
        }
    }

    fn within(&self, millis: u64) -> u32 {
        u32::try_from(millis.saturating_sub(self.base)).unwrap_or(u32::MAX)
    }

    fn take(&mut self, report: Report, sn: Option<u32>, told: &mut PlaybackDelta) {
        let (Some(sn), Some(next)) = (sn, self.next_sn.map(NonZeroU32::get)) else {
            self.next_sn = sn.map(after);
            return self.apply(report, told);
        };
        let is_held = self.held.iter().flatten().any(|held| held.sn == sn);
        if sn == 0 && report.ts > self.newest {
            // The numbers begin anew with a new target or page.
            self.release(told);
        } else if sn < next || is_held {
            told.repeated += 1;
            return;
        } else if self.missing_before(sn) > 0 && !report.speaks && self.ahead < MAX_AHEAD {
            // What is missing may be a state: it need not wait for a place that this one does not need.
            self.ahead += 1;
            if report.hidden.is_some_and(|hidden| hidden != self.hidden) {
                self.turn(report.ts);
                self.hidden = !self.hidden;
                self.settle(told);
            }
            return;
        } else if self.missing_before(sn) > 0 {
            match self.held.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => {
                    *slot = Some(report);
                    return;
                }
                None => self.release(told),
            }
            if self.next_sn.is_some_and(|next| sn < next.get()) {
                told.repeated += 1;
                return;
            }
            let missing = self.missing_before(sn);
            told.lost += missing;
            self.gap |= missing > 0;
        }
        self.go_on_after(sn);
        self.apply(report, told);
        let next = |held: &Option<Report>, clock: &Self| held.is_some_and(|held| clock.missing_before(held.sn) == 0);
        while let Some(index) = self.held.iter().position(|held| next(held, self)) {
            self.apply_held(index, told);
        }
    }

    /// Applies what is held, in order; what should have come between is lost.
    fn release(&mut self, told: &mut PlaybackDelta) {
        while let Some((_, index)) =
            self.held.iter().enumerate().filter_map(|(index, held)| held.map(|held| (held.sn, index))).min()
        {
            let missing = self.held[index].map_or(0, |held| self.missing_before(held.sn));
            told.lost += missing;
            self.gap |= missing > 0;
            self.apply_held(index, told);
        }
    }

    fn apply_held(&mut self, index: usize, told: &mut PlaybackDelta) {
        if let Some(held) = self.held[index].take() {
            self.go_on_after(held.sn);
            self.apply(held, told);
        }
    }

    /// The next report is the one after this number; those that came ahead of it are behind it now.
    fn go_on_after(&mut self, sn: u32) {
        let passed = self.next_sn.map_or(0, |next| sn.saturating_sub(next.get()));
        self.ahead = self.ahead.saturating_sub(u16::try_from(passed).unwrap_or(u16::MAX));
        self.next_sn = Some(after(sn));
    }

    /// How many reports should have come before that of this number and did not.
    fn missing_before(&self, sn: u32) -> u32 {
        self.next_sn.map_or(0, |next| sn.saturating_sub(next.get()).saturating_sub(self.ahead.into()))
    }

    fn apply(&mut self, report: Report, told: &mut PlaybackDelta) {
        if report.state.is_some() || report.hidden.is_some() {
            self.turn(report.ts);
            self.hidden = report.hidden.unwrap_or(self.hidden);
        }
        if let Some(state) = report.state.map(|state| self.meant(state)) {
            let began = state == State::Rebuffering && self.state != Some(state);
            told.starts += u32::from(began && self.played && !self.hidden);
            if state == State::Playing && !self.played {
                self.played = true;
                self.to = report.ts;
            }
            if self.state != Some(state) {
                self.since = self.to;
            }
            self.state = Some(state);
        }
        self.repair(report.absolute);
        self.settle(told);
    }

    /// What is told as stalled before a seek has shown its picture is the seek's: players say so when the new place is
    /// not loaded yet.
    fn meant(&self, state: State) -> State {
        let seeks = self.state == Some(State::Seeking) && state == State::Rebuffering;
        if seeks { State::Seeking } else { state }
    }

    /// Where reports were lost, the player's own total says what stalled in between.
    fn repair(&mut self, absolute: Option<NonZeroU32>) {
        let (Some(now), false) = (absolute, self.state == Some(State::Rebuffering)) else {
            return;
        };
        if let (Some(was), true) = (self.absolute, self.gap) {
            let more = i64::from(now.get()) - i64::from(was.get()) - i64::from(self.counted);
            self.owed_stalled = self.owed_stalled.saturating_add(more.clamp(0, MAX_STATE_MILLIS.into()) as i32);
        }
        (self.absolute, self.counted, self.gap) = (Some(now), 0, false);
    }

    /// Counts the present state up to `ts`, or takes back what was counted of it beyond.
    fn turn(&mut self, ts: u32) {
        if ts >= self.to {
            return self.count(ts);
        }
        let ts = ts.max(self.since);
        self.add(-self.to.saturating_sub(ts).min(MAX_STATE_MILLIS).cast_signed());
        self.to = ts;
    }

    /// Counts the present state up to `to`.
    fn count(&mut self, to: u32) {
        let passed = to.saturating_sub(self.to).min(MAX_STATE_MILLIS).cast_signed();
        self.to = self.to.max(to);
        self.add(passed);
    }

    fn add(&mut self, millis: i32) {
        let stalls = self.state == Some(State::Rebuffering);
        if !self.played || self.hidden || !(stalls || self.state == Some(State::Playing)) {
            return;
        }
        self.owed_exposure = self.owed_exposure.saturating_add(millis);
        if stalls {
            self.owed_stalled = self.owed_stalled.saturating_add(millis);
            self.counted = self.counted.saturating_add(millis);
        }
    }

    /// Tells what is owed; a stall that is told late is told of time that is exposure.
    fn settle(&mut self, told: &mut PlaybackDelta) {
        let exposure = self.owed_exposure.max(0);
        let stalled = self.owed_stalled.clamp(0, exposure);
        told.exposure_millis += u64::from(exposure.unsigned_abs());
        told.stalled_millis += u64::from(stalled.unsigned_abs());
        (self.owed_exposure, self.owed_stalled) = (self.owed_exposure - exposure, self.owed_stalled - stalled);
    }
}

/// What one report says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateReport {
    /// Its state.
    pub(crate) state: Option<State>,
    /// Whether it is in the background.
    pub(crate) hidden: Option<bool>,
    /// Stall time since the session's start (`bsda`), ms.
    pub(crate) absolute: Option<u32>,
    /// Whether its instant is when it was made: not so for `rr`, whose `ts` is when the request began.
    pub(crate) speaks: bool,
}

/// The number after this one.
fn after(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number)
}

fn skew_of(at: u64, ts: u64) -> i32 {
    i64::try_from(at)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::try_from(ts).unwrap_or(i64::MAX))
        .clamp(-MAX_SKEW, MAX_SKEW) as i32
}

/// Reports of no state that may come ahead of others: more of them are a gap.
const MAX_AHEAD: u16 = 64;
/// Reports held back because others should come before them.
const MAX_HELD: usize = 2;
/// How late a report may be and still find its place without a correction.
pub(crate) const LATENESS_MILLIS: u32 = 2_000;
/// How long a stall is believed after the viewer's last word.
const OPEN_MILLIS: u64 = 6_000;
/// The longest time that one state is counted at once: beyond it a clock was set.
const MAX_STATE_MILLIS: u32 = 600_000;
/// How far before its first one a report may be.
const MAX_BACK_MILLIS: u64 = 3_600_000;
/// A clock further off is taken for so far off.
const MAX_SKEW: i64 = 1_000_000_000;
