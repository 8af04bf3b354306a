//! One viewer as its reports show it: which of its words count, in the order of its own clock. Decides that state events stand before
//! buffer lengths; refuses reports twice, holds those that overtook others, and lets an open stall count while it lasts.

use crate::buffer_stall::{BufferStall, Look};
use crate::cmcd::{Cmcd, Event, ObjectType, State};
use crate::time::Timestamp;

/// What reports added to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Time in playing or stalled state, ms.
    pub(crate) exposure_millis: u64,
    /// Of it stalled, ms.
    pub(crate) stalled_millis: u64,
    /// Stalls that began.
    pub(crate) starts: u32,
    /// Reports left out as repeated or too late.
    pub(crate) repeated: u32,
    /// Reports that never came, by their numbers.
    pub(crate) lost: u32,
}

/// What is remembered of a viewer: no identifier, and a fixed size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Viewer {
    /// Which session it is in.
    pub(crate) session: u32,
    /// Whether it told how long it took to start.
    pub(crate) started: bool,
    /// When it was last heard, Unix milliseconds of the log.
    pub(crate) seen: u64,
    track: Option<ObjectType>,
    buffer: BufferStall,
    /// Made with its first event report: a viewer of requests alone needs none.
    clock: Option<Box<PlayClock>>,
}

/// The state machine of event reports, by the player's own clock.
#[derive(Clone, Copy, Debug, Default)]
struct PlayClock {
    /// Up to when its state is counted.
    to: u64,
    /// Its newest instant, and when that arrived here.
    newest: u64,
    arrived: u64,
    next_sn: Option<u32>,
    held: [Option<Held>; MAX_HELD],
    /// Total stall time it last told, and what was counted since.
    absolute: Option<u32>,
    counted: u32,
    state: Option<State>,
    played: bool,
    hidden: bool,
    gap: bool,
}

/// A report that overtook another.
#[derive(Clone, Copy, Debug)]
struct Held {
    ts: u64,
    sn: u32,
    absolute: Option<u32>,
    state: Option<State>,
    hidden: Option<bool>,
}

impl Viewer {
    /// A viewer of this session, of whom nothing is known.
    pub(crate) fn of(session: u32) -> Self {
        Self { session, ..Self::default() }
    }

    /// A request for an object: `at` is when it was made.
    pub(crate) fn request(&mut self, at: Timestamp, set: &Cmcd<'_>, told: &mut Told) {
        self.seen = self.seen.max(at.millis());
        let is_media = matches!(set.ot, None | Some(ObjectType::Audio | ObjectType::Video | ObjectType::Muxed));
        if !is_media || self.clock.as_ref().is_some_and(|clock| clock.state.is_some()) {
            return;
        }
        let (Some(bl), Some(d)) = (set.bl.of(set.ot), set.d) else {
            // What this object brought to the buffer is not known, so the next one has nothing to be held against.
            if set.d.is_some() && self.track == set.ot {
                self.buffer = BufferStall::default();
            }
            return;
        };
        if self.track != set.ot {
            // Video stands before audio; a look at another track would compare two buffers.
            if self.track == Some(ObjectType::Video) {
                return;
            }
            (self.track, self.buffer) = (set.ot, BufferStall::default());
        }
        let rebuffers = set.sta == Some(State::Rebuffering);
        let before = matches!(set.sta, Some(State::Starting | State::Preloading));
        let look = Look {
            at: at.millis(),
            bl,
            d,
            rate: set.pr_thousandths.unwrap_or(1_000),
            starving: set.bs || set.su || rebuffers,
            starting: before || (set.su && !rebuffers && set.sta != Some(State::Playing)),
        };
        if set.pr_thousandths == Some(0) || set.bg == Some(true) || set.sta == Some(State::Paused) {
            self.buffer = BufferStall::default();
        } else {
            self.buffer.look(look, told);
        }
    }

    /// An event report that arrived at `at`.
    pub(crate) fn event(&mut self, at: Timestamp, set: &Cmcd<'_>, told: &mut Told) {
        self.seen = self.seen.max(at.millis());
        let Some(ts) = set.ts else {
            return;
        };
        let speaks = set.e != Some(Event::Response);
        let report = Held {
            ts,
            sn: set.sn.unwrap_or(0),
            absolute: set.bsda.of(None),
            // The instant of a response report is when its request began: its state is of another time.
            state: set.sta.filter(|_| speaks),
            hidden: set.bg.or((set.e == Some(Event::Background)).then_some(false)),
        };
        let clock = self.clock.get_or_insert_default();
        clock.take(report, set.sn, told);
        if speaks && ts >= clock.newest {
            (clock.newest, clock.arrived) = (ts, at.millis());
        }
    }

    /// Counts up to `now`, late reports allowed for; `last`: nothing more will come, so up to its last word.
    pub(crate) fn sweep(&mut self, now: Timestamp, last: bool, told: &mut Told) {
        let Some(clock) = self.clock.as_mut().filter(|clock| clock.state.is_some()) else {
            return;
        };
        let now = now.millis();
        if last || now.saturating_sub(clock.arrived) > LATENESS_MILLIS {
            clock.release(told);
        }
        let (now, late) = if last { (self.seen, 0) } else { (now.min(self.seen + OPEN_MILLIS), LATENESS_MILLIS) };
        let to = (clock.newest + now.saturating_sub(clock.arrived)).saturating_sub(late);
        clock.count(to, told);
    }
}

impl PlayClock {
    fn take(&mut self, report: Held, sn: Option<u32>, told: &mut Told) {
        let (Some(sn), Some(next)) = (sn, self.next_sn) else {
            self.next_sn = sn.map(|sn| sn.saturating_add(1));
            return self.apply(report, told);
        };
        let is_held = self.held.iter().flatten().any(|held| held.sn == sn);
        if sn == 0 && report.ts > self.newest {
            // The numbers begin anew with a new target or page.
            self.release(told);
        } else if sn < next || is_held {
            told.repeated += 1;
            return;
        } else if sn > next {
            match self.held.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => {
                    *slot = Some(report);
                    return;
                }
                None => self.release(told),
            }
            if self.next_sn.is_some_and(|next| sn < next) {
                told.repeated += 1;
                return;
            }
            let missing = sn - self.next_sn.unwrap_or(sn);
            told.lost += missing;
            self.gap |= missing > 0;
        }
        self.next_sn = Some(sn.saturating_add(1));
        self.apply(report, told);
        while let Some(index) = self.held.iter().position(|held| held.is_some_and(|held| Some(held.sn) == self.next_sn))
        {
            self.apply_held(index, told);
        }
    }

    /// Applies what is held, in order; what should have come between is lost.
    fn release(&mut self, told: &mut Told) {
        while let Some((_, index)) =
            self.held.iter().enumerate().filter_map(|(index, held)| held.map(|held| (held.sn, index))).min()
        {
            let missing = self.held[index].map_or(0, |held| held.sn.saturating_sub(self.next_sn.unwrap_or(held.sn)));
            told.lost += missing;
            self.gap |= missing > 0;
            self.apply_held(index, told);
        }
    }

    fn apply_held(&mut self, index: usize, told: &mut Told) {
        if let Some(held) = self.held[index].take() {
            self.next_sn = Some(held.sn.saturating_add(1));
            self.apply(held, told);
        }
    }

    fn apply(&mut self, report: Held, told: &mut Told) {
        if report.state.is_some() || report.hidden.is_some() {
            self.count(report.ts, told);
            self.hidden = report.hidden.unwrap_or(self.hidden);
        }
        if let Some(state) = report.state {
            let began = state == State::Rebuffering && self.state != Some(state);
            told.starts += u32::from(began && self.played && !self.hidden);
            if state == State::Playing && !self.played {
                self.played = true;
                self.to = report.ts;
            }
            self.state = Some(state);
        }
        self.repair(report.absolute, told);
    }

    /// Where reports were lost, the player's own total says what stalled in between.
    fn repair(&mut self, absolute: Option<u32>, told: &mut Told) {
        let (Some(now), false) = (absolute, self.state == Some(State::Rebuffering)) else {
            return;
        };
        if let (Some(was), true) = (self.absolute, self.gap) {
            told.stalled_millis += u64::from(now.saturating_sub(was).saturating_sub(self.counted));
        }
        (self.absolute, self.counted, self.gap) = (Some(now), 0, false);
    }

    /// Counts the present state up to `to`.
    fn count(&mut self, to: u64, told: &mut Told) {
        let Some(passed) = to.checked_sub(self.to).filter(|_| self.played) else {
            return;
        };
        self.to = to;
        let passed = passed.min(MAX_STATE_MILLIS);
        let stalls = self.state == Some(State::Rebuffering);
        if self.hidden || !(stalls || self.state == Some(State::Playing)) {
            return;
        }
        told.exposure_millis += passed;
        if stalls {
            told.stalled_millis += passed;
            self.counted = self.counted.saturating_add(passed as u32);
        }
    }
}

/// Reports held back because others should come before them.
const MAX_HELD: usize = 2;
/// How late a report may be and still find its place.
pub(crate) const LATENESS_MILLIS: u64 = 2_000;
/// How long a state is believed after the viewer's last word.
const OPEN_MILLIS: u64 = 6_000;
/// The longest time that one state is counted at once: beyond it a clock was set.
const MAX_STATE_MILLIS: u64 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(viewer: &mut Viewer, reports: &[&str]) -> Told {
        let mut told = Told::default();
        for report in reports {
            let set = Cmcd::parse(report.as_bytes()).expect("v2");
            let at = Timestamp::from_millis(set.ts.expect("a ts") + 30);
            viewer.event(at, &set, &mut told);
        }
        let seen = Timestamp::from_millis(viewer.seen);
        viewer.sweep(seen, true, &mut told);
        told
    }

    const PLAY: [&str; 6] = [
        "e=ps,sn=0,sta=s,ts=1000000",
        "e=ps,sn=1,sta=r,ts=1000100",
        "e=ps,sn=2,sta=p,ts=1000500",
        "bsda=(400),e=ps,sn=3,sta=r,ts=1010500",
        "bsda=(1400),e=ps,sn=4,sta=p,ts=1011500",
        "bsda=(1400),e=t,sn=5,sta=p,ts=1020470",
    ];

    #[test]
    fn startup_is_out_and_a_stall_counts_whole() {
        let told = feed(&mut Viewer::default(), &PLAY);
        assert_eq!((told.exposure_millis, told.stalled_millis, told.starts), (19_970, 1_000, 1));
        assert_eq!((told.repeated, told.lost), (0, 0));
    }

    #[test]
    fn twice_and_out_of_order_says_the_same() {
        let shuffled = [PLAY[0], PLAY[2], PLAY[1], PLAY[1], PLAY[3], PLAY[3], PLAY[5], PLAY[4], PLAY[5]];
        let told = feed(&mut Viewer::default(), &shuffled);
        let calm = feed(&mut Viewer::default(), &PLAY);
        assert_eq!((told.stalled_millis, told.starts), (calm.stalled_millis, 1));
        assert_eq!((told.exposure_millis, told.repeated), (calm.exposure_millis, 3));
    }

    #[test]
    fn a_lost_report_is_repaired_from_the_total() {
        let lossy = [PLAY[0], PLAY[1], "bsda=(400),e=ps,sn=2,sta=p,ts=1000500", PLAY[5]];
        let told = feed(&mut Viewer::default(), &lossy);
        assert_eq!((told.stalled_millis, told.lost), (1_000, 2));
    }

    #[test]
    fn pause_seek_and_background_are_no_exposure() {
        let told = feed(
            &mut Viewer::default(),
            &[
                "e=ps,sn=0,sta=p,ts=1000000",
                "e=ps,sn=1,sta=a,ts=1001000",
                "e=ps,sn=2,sta=k,ts=1005000",
                "e=ps,sn=3,sta=p,ts=1006000",
                "bg,e=b,sn=4,sta=p,ts=1007000",
                "e=b,sn=5,sta=p,ts=1017000",
                "e=ps,sn=6,sta=q,ts=1018000",
            ],
        );
        assert_eq!((told.exposure_millis, told.stalled_millis), (3_000, 0));
    }

    #[test]
    fn an_open_stall_counts_while_it_lasts() {
        let mut viewer = Viewer::default();
        let mut told = Told::default();
        for report in ["e=ps,sn=0,sta=p,ts=1000000", "e=ps,sn=1,sta=r,ts=1001000"] {
            let set = Cmcd::parse(report.as_bytes()).expect("v2");
            viewer.event(Timestamp::from_millis(set.ts.expect("a ts")), &set, &mut told);
        }
        viewer.sweep(Timestamp::from_millis(1_006_000), false, &mut told);
        assert_eq!((told.stalled_millis, told.exposure_millis), (3_000, 4_000));
        viewer.sweep(Timestamp::from_millis(1_090_000), false, &mut told);
        assert_eq!(told.stalled_millis, 4_000, "nobody is believed for ever");
    }

    #[test]
    fn a_viewer_is_small() {
        assert!(size_of::<Viewer>() <= 72, "{}", size_of::<Viewer>());
    }
}
