//! Stall time of one viewer from the states in its event reports (CTA-5004-B `ps`), by the player's own clock. Decides
//! the order of reports and which time counts as stalled. A late report corrects what was counted before it; a repeated
//! one is dropped.

use std::num::NonZeroU32;

use super::delta::PlaybackDelta;
use crate::cmcd::State;

/// The state machine of event reports. Instants are milliseconds since [`PlayerStateClock::base`] by the player's
/// clock, unless noted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlayerStateClock {
    /// Zero of all instants below, Unix milliseconds.
    base: u64,
    /// Up to when the present state is counted.
    counted_to: u32,
    /// When the present state began.
    since: u32,
    /// The newest report's instant.
    newest: u32,
    /// The least difference seen between arrival by this node's clock and the player's clock, ms: skew plus delivery.
    skew: i32,
    next_sn: Option<NonZeroU32>,
    /// Reports without a state that overtook others.
    ahead: u16,
    waiting: [Option<Report>; MAX_WAITING],
    /// The total stall time last reported plus one, and what was counted since, ms.
    total_stall: Option<NonZeroU32>,
    counted: i32,
    /// Counted and not reported yet, ms; negative where too much was reported.
    unreported_exposure: i32,
    unreported_stall: i32,
    state: Option<State>,
    played: bool,
    hidden: bool,
    has_gap: bool,
}

/// A report, its instants relative to the base.
#[derive(Clone, Copy, Debug)]
struct Report {
    ts: u32,
    /// When it arrived, by this node's clock.
    arrived: u32,
    has_own_time: bool,
    sn: u32,
    total_stall: Option<NonZeroU32>,
    state: Option<State>,
    hidden: Option<bool>,
}

impl PlayerStateClock {
    /// Whether a state was ever reported.
    pub(crate) const fn has_state(&self) -> bool {
        self.state.is_some()
    }

    /// Folds a report with timestamp `ts` that arrived at `at`, both Unix milliseconds.
    pub(crate) fn report(
        &mut self,
        (at, ts): (u64, u64),
        sn: Option<u32>,
        delta: &mut PlaybackDelta,
        state_report: StateReport,
    ) {
        if self.base == 0 {
            self.base = ts.saturating_sub(MAX_BACK_MILLIS);
            self.skew = skew_of(at, ts);
        }
        let skew = skew_of(at, ts);
        if self.skew.abs_diff(skew) > MAX_STATE_MILLIS && state_report.has_own_time {
            // A clock was set, or the report is of another time: the time between is not known.
            let ts = self.since_base(ts);
            (self.skew, self.counted_to, self.since, self.newest) = (skew, ts, ts, ts);
        }
        let report = Report {
            ts: self.since_base(ts),
            arrived: self.since_base(at),
            has_own_time: state_report.has_own_time,
            sn: sn.unwrap_or(0),
            total_stall: state_report.total_stall.map(after),
            state: state_report.state,
            hidden: state_report.hidden,
        };
        self.order(report, sn, delta);
        if state_report.has_own_time {
            self.newest = self.newest.max(report.ts);
            self.skew = self.skew.min(skew);
        }
    }

    /// Continues counting the present state. `now` and `last_request`, the viewer's last request, are Unix milliseconds
    /// of this node's clock; with `last`, nothing more will come.
    pub(crate) fn sweep(&mut self, now: u64, last_request: u64, last: bool, delta: &mut PlaybackDelta) {
        if self.state.is_none() {
            return;
        }
        let now_within = self.since_base(now);
        let waits_long = |waiting: &Report| now_within.saturating_sub(waiting.arrived) > LATENESS_MILLIS;
        if last || self.waiting.iter().flatten().any(waits_long) {
            self.release(delta);
        } else if self.waiting.iter().any(Option::is_some) {
            // The missing report may be of another state.
            return;
        }
        // A playing viewer makes requests; only a stalled one may be silent and still count as such.
        let lateness = u64::from(LATENESS_MILLIS);
        let trusted = if self.state == Some(State::Rebuffering) { OPEN_STALL_MILLIS } else { lateness };
        // A late report stands for its own time, not for its arrival.
        let own = self.base.saturating_add(self.newest.into()).saturating_add_signed(self.skew.into());
        let last_sign = own.max(last_request);
        let until = if last { last_sign } else { now.min(last_sign.saturating_add(trusted)).saturating_sub(lateness) };
        let counted_to = self.since_base(until.saturating_add_signed(-i64::from(self.skew)));
        if counted_to > self.counted_to {
            self.count(counted_to);
            self.flush(delta);
        }
    }

    fn since_base(&self, millis: u64) -> u32 {
        u32::try_from(millis.saturating_sub(self.base)).unwrap_or(u32::MAX)
    }

    fn order(&mut self, report: Report, sn: Option<u32>, delta: &mut PlaybackDelta) {
        let (Some(sn), Some(next)) = (sn, self.next_sn.map(NonZeroU32::get)) else {
            self.next_sn = sn.map(after);
            return self.apply(report, delta);
        };
        let is_waiting = self.waiting.iter().flatten().any(|waiting| waiting.sn == sn);
        if sn == 0 && report.ts > self.newest {
            // Sequence numbers restart with a new target or page.
            self.release(delta);
        } else if sn < next || is_waiting {
            delta.repeated += 1;
            return;
        } else if self.missing_before(sn) > 0 && !report.has_own_time && self.ahead < MAX_AHEAD {
            // The missing report may be a state: it needs a waiting slot, which this report does not.
            self.ahead += 1;
            if report.hidden.is_some_and(|hidden| hidden != self.hidden) {
                self.recount(report.ts);
                self.hidden = !self.hidden;
                self.flush(delta);
            }
            return;
        } else if self.missing_before(sn) > 0 {
            match self.waiting.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => {
                    *slot = Some(report);
                    return;
                }
                None => self.release(delta),
            }
            if self.next_sn.is_some_and(|next| sn < next.get()) {
                delta.repeated += 1;
                return;
            }
            let missing = self.missing_before(sn);
            delta.lost += missing;
            self.has_gap |= missing > 0;
        }
        self.go_on_after(sn);
        self.apply(report, delta);
        let next = |waiting: &Option<Report>, clock: &Self| {
            waiting.is_some_and(|waiting| clock.missing_before(waiting.sn) == 0)
        };
        while let Some(index) = self.waiting.iter().position(|waiting| next(waiting, self)) {
            self.apply_waiting(index, delta);
        }
    }

    /// Applies the waiting reports in order; those missing between them are lost.
    fn release(&mut self, delta: &mut PlaybackDelta) {
        while let Some((_, index)) = self
            .waiting
            .iter()
            .enumerate()
            .filter_map(|(index, waiting)| waiting.map(|waiting| (waiting.sn, index)))
            .min()
        {
            let missing = self.waiting[index].map_or(0, |waiting| self.missing_before(waiting.sn));
            delta.lost += missing;
            self.has_gap |= missing > 0;
            self.apply_waiting(index, delta);
        }
    }

    fn apply_waiting(&mut self, index: usize, delta: &mut PlaybackDelta) {
        if let Some(waiting) = self.waiting[index].take() {
            self.go_on_after(waiting.sn);
            self.apply(waiting, delta);
        }
    }

    /// Continues after this sequence number; reports that overtook it are now in order.
    fn go_on_after(&mut self, sn: u32) {
        let passed = self.next_sn.map_or(0, |next| sn.saturating_sub(next.get()));
        self.ahead = self.ahead.saturating_sub(u16::try_from(passed).unwrap_or(u16::MAX));
        self.next_sn = Some(after(sn));
    }

    /// How many reports should have preceded this sequence number and are missing.
    fn missing_before(&self, sn: u32) -> u32 {
        self.next_sn.map_or(0, |next| sn.saturating_sub(next.get()).saturating_sub(self.ahead.into()))
    }

    fn apply(&mut self, report: Report, delta: &mut PlaybackDelta) {
        if report.state.is_some() || report.hidden.is_some() {
            self.recount(report.ts);
            self.hidden = report.hidden.unwrap_or(self.hidden);
        }
        if let Some(state) = report.state.map(|state| self.effective(state)) {
            let began = state == State::Rebuffering && self.state != Some(state);
            delta.starts += u32::from(began && self.played && !self.hidden);
            if state == State::Playing && !self.played {
                self.played = true;
                self.counted_to = report.ts;
            }
            if self.state != Some(state) {
                self.since = self.counted_to;
            }
            self.state = Some(state);
        }
        self.repair(report.total_stall);
        self.flush(delta);
    }

    /// Rebuffering reported before a seek has shown its picture is part of the seek: players report it while the new
    /// position is not loaded.
    fn effective(&self, state: State) -> State {
        let seeks = self.state == Some(State::Seeking) && state == State::Rebuffering;
        if seeks { State::Seeking } else { state }
    }

    /// Where reports were lost, the player's own total gives the stall time in between.
    fn repair(&mut self, total_stall: Option<NonZeroU32>) {
        let (Some(now), false) = (total_stall, self.state == Some(State::Rebuffering)) else {
            return;
        };
        if let (Some(was), true) = (self.total_stall, self.has_gap) {
            let more = i64::from(now.get()) - i64::from(was.get()) - i64::from(self.counted);
            self.unreported_stall = self.unreported_stall.saturating_add(more.clamp(0, MAX_STATE_MILLIS.into()) as i32);
        }
        (self.total_stall, self.counted, self.has_gap) = (Some(now), 0, false);
    }

    /// Counts the present state up to `ts`, or takes back what was counted beyond it.
    fn recount(&mut self, ts: u32) {
        if ts >= self.counted_to {
            return self.count(ts);
        }
        let ts = ts.max(self.since);
        self.add(-self.counted_to.saturating_sub(ts).min(MAX_STATE_MILLIS).cast_signed());
        self.counted_to = ts;
    }

    /// Counts the present state up to `until`.
    fn count(&mut self, until: u32) {
        let passed = until.saturating_sub(self.counted_to).min(MAX_STATE_MILLIS).cast_signed();
        self.counted_to = self.counted_to.max(until);
        self.add(passed);
    }

    fn add(&mut self, millis: i32) {
        let stalls = self.state == Some(State::Rebuffering);
        if !self.played || self.hidden || !(stalls || self.state == Some(State::Playing)) {
            return;
        }
        self.unreported_exposure = self.unreported_exposure.saturating_add(millis);
        if stalls {
            self.unreported_stall = self.unreported_stall.saturating_add(millis);
            self.counted = self.counted.saturating_add(millis);
        }
    }

    /// Reports what is not reported yet; a stall that becomes known late is part of exposure reported before.
    fn flush(&mut self, delta: &mut PlaybackDelta) {
        let exposure = self.unreported_exposure.max(0);
        let stalled = self.unreported_stall.clamp(0, exposure);
        delta.exposure_millis += u64::from(exposure.unsigned_abs());
        delta.stalled_millis += u64::from(stalled.unsigned_abs());
        (self.unreported_exposure, self.unreported_stall) =
            (self.unreported_exposure - exposure, self.unreported_stall - stalled);
    }
}

/// The content of one report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateReport {
    /// The player's state.
    pub(crate) state: Option<State>,
    /// Whether the player is in the background.
    pub(crate) hidden: Option<bool>,
    /// Stall time since the session's start (`bsda`), ms.
    pub(crate) total_stall: Option<u32>,
    /// Whether its timestamp is when it was made; not so for `rr`, whose `ts` is when the request began.
    pub(crate) has_own_time: bool,
}

/// The next sequence number.
fn after(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number)
}

fn skew_of(at: u64, ts: u64) -> i32 {
    i64::try_from(at)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::try_from(ts).unwrap_or(i64::MAX))
        .clamp(-MAX_SKEW, MAX_SKEW) as i32
}

/// Reports without a state that may overtake others; more of them are a gap.
const MAX_AHEAD: u16 = 64;
/// Reports that wait for others that should precede them.
const MAX_WAITING: usize = 2;
/// How late a report may arrive and still be counted without a correction.
pub(crate) const LATENESS_MILLIS: u32 = 2_000;
/// How long a stall counts after the viewer's last report.
const OPEN_STALL_MILLIS: u64 = 6_000;
/// The longest time of one state counted at once: beyond it a clock was set.
const MAX_STATE_MILLIS: u32 = 600_000;
/// How far before the first report another may be.
const MAX_BACK_MILLIS: u64 = 3_600_000;
/// A clock that is further off counts as this far off.
const MAX_SKEW: i64 = 1_000_000_000;
