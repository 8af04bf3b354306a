//! One viewer as its reports show it: which of its words count. Decides that state events stand before buffer lengths,
//! video before audio, and that a player's urgent word on any request is a sign for all.

use super::buffer_stall::{BufferReading, BufferStall};
use super::state_stall::{PlayerStateClock, StateReport};
use crate::cmcd::{Cmcd, Event, ObjectType, State};
use crate::model::Timestamp;

/// What reports added to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlaybackDelta {
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
    /// When it made its last request.
    asked: u64,
    track: Option<ObjectType>,
    /// Whether a request of another type was urgent since the last look.
    urgent: bool,
    buffer: BufferStall,
    /// Only of those who post events.
    clock: Option<Box<PlayerStateClock>>,
}

impl Viewer {
    /// A viewer of this session, of whom nothing is known.
    pub(crate) fn of(session: u32) -> Self {
        Self { session, ..Self::default() }
    }

    /// A request for an object: `at` is when it was made.
    pub(crate) fn request(&mut self, at: Timestamp, set: &Cmcd<'_>, told: &mut PlaybackDelta) {
        self.seen = self.seen.max(at.millis());
        self.asked = self.asked.max(at.millis());
        let is_media = matches!(set.ot, None | Some(ObjectType::Audio | ObjectType::Video | ObjectType::Muxed));
        if !is_media || self.clock.as_ref().is_some_and(|clock| clock.has_state()) {
            return;
        }
        let urgent = set.bs || set.su || set.sta == Some(State::Rebuffering);
        let Some((bl, d)) = Self::buffer(set) else {
            // What this object brought to the buffer is not known, so the next one has nothing to be held against.
            if set.d.is_some() && self.track == set.ot {
                self.buffer = BufferStall::default();
            }
            return;
        };
        if self.track != set.ot {
            // Video stands before audio; a look at another track would compare two buffers.
            if self.track == Some(ObjectType::Video) {
                self.urgent |= urgent;
                self.buffer.elsewhere(at.millis(), bl, d);
                return;
            }
            (self.track, self.buffer) = (set.ot, BufferStall::default());
        }
        let rebuffers = set.sta == Some(State::Rebuffering);
        let before = matches!(set.sta, Some(State::Starting | State::Preloading));
        let playing = set.sta == Some(State::Playing);
        let look = BufferReading {
            at: at.millis(),
            bl,
            d,
            rate: set.pr_thousandths.unwrap_or(1_000),
            behind: set.ltc.and_then(std::num::NonZeroU32::new),
            starving: urgent || self.urgent,
            starting: before || (set.su && !rebuffers && !playing),
            playing,
        };
        self.urgent = false;
        let hidden = set.bg == Some(true);
        if hidden || set.pr_thousandths == Some(0) || set.sta == Some(State::Paused) {
            self.buffer.pause(look, hidden, told);
        } else {
            self.buffer.look(look, told);
        }
    }

    /// Buffer length and what is asked for. shaka-player 5.2 leaves out `bl` where nothing is buffered, and says so by
    /// `dl`.
    fn buffer(set: &Cmcd<'_>) -> Option<(u32, u32)> {
        let empty = set.dl.filter(|deadline| *deadline == 0);
        Some((set.bl.of(set.ot).or(empty)?, set.d?))
    }

    /// An event report that arrived at `at`.
    pub(crate) fn event(&mut self, at: Timestamp, set: &Cmcd<'_>, told: &mut PlaybackDelta) {
        self.seen = self.seen.max(at.millis());
        let Some(ts) = set.ts else {
            return;
        };
        let speaks = set.e != Some(Event::Response);
        let says = StateReport {
            // The instant of a response report is when its request began: its state is of another time.
            state: set.sta.filter(|_| speaks),
            // `bg` is sent where it is true; dash.js 5.2 says so of its requests only.
            hidden: set.bg.or(matches!(set.e, Some(Event::Background | Event::Response)).then_some(false)),
            absolute: set.bsda.of(None),
            speaks,
        };
        self.clock.get_or_insert_default().report((at.millis(), ts), set.sn, told, says);
    }

    /// Counts up to `now`, late reports allowed for; `last`: nothing more will come, so up to its last word.
    pub(crate) fn sweep(&mut self, now: Timestamp, last: bool, told: &mut PlaybackDelta) {
        if let Some(clock) = &mut self.clock {
            clock.sweep(now.millis(), self.asked, last, told);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(viewer: &mut Viewer, at: u64, text: &str, told: &mut PlaybackDelta) {
        let set = Cmcd::parse(text.as_bytes()).expect("v2");
        viewer.event(Timestamp::from_millis(at), &set, told);
    }

    fn feed(viewer: &mut Viewer, reports: &[&str]) -> PlaybackDelta {
        let mut told = PlaybackDelta::default();
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
    fn a_state_that_is_overtaken_by_many_reports_is_found() {
        // Of a narrow link: the answers to requests told their reports before the stall's own.
        let (mut viewer, mut told) = (Viewer::default(), PlaybackDelta::default());
        let mut take = |at, text: &str| event(&mut viewer, at, text, &mut told);
        take(1_000_030, "e=ps,sn=0,sta=p,ts=1000000");
        for sn in 2..=8 {
            take(1_011_000, &format!("e=rr,sn={sn},sta=r,ts=1009000"));
        }
        take(1_011_100, "e=ps,sn=9,sta=p,ts=1011000");
        take(1_012_000, "e=ps,sn=1,sta=r,ts=1008000");
        take(1_020_030, "e=t,sn=10,sta=p,ts=1020000");
        assert_eq!((told.exposure_millis, told.stalled_millis, told.starts), (20_000, 3_000, 1));
        assert_eq!((told.repeated, told.lost), (0, 0));
    }

    #[test]
    fn the_background_is_told_by_reports_that_changed_places() {
        // As dash.js sends them: two answers at once, then `bg` on those that follow, and none on the interval's
        // report.
        for swapped in [[1, 2], [2, 1], [2, 2]] {
            let (mut viewer, mut told) = (Viewer::default(), PlaybackDelta::default());
            let mut take = |at, text: &str| event(&mut viewer, at, text, &mut told);
            take(1_000_030, "e=ps,sn=0,sta=p,ts=1000000");
            for sn in swapped {
                take(1_008_200, &format!("e=rr,sn={sn},sta=p,ts=1008200"));
            }
            for sn in 3..=8_u64 {
                let at = 1_008_000 + (sn - 2) * 1_000;
                take(at, &format!("bg,e=rr,sn={sn},sta=p,ts={at}"));
            }
            take(1_015_000, "e=rr,sn=9,sta=p,ts=1015000");
            take(1_020_000, "e=t,sn=10,sta=p,ts=1020000");
            viewer.sweep(Timestamp::from_millis(1_030_000), true, &mut told);
            assert_eq!((told.exposure_millis, told.stalled_millis), (9_000 + 5_000, 0), "{swapped:?}");
        }
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
        let mut told = PlaybackDelta::default();
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
    fn a_stall_that_is_told_late_is_found() {
        // All but the first two came when the link was back: until then it was taken for playing.
        let mut viewer = Viewer::default();
        let mut told = PlaybackDelta::default();
        let mut take = |viewer: &mut Viewer, at, text: &str| {
            let set = Cmcd::parse(text.as_bytes()).expect("v2");
            viewer.event(Timestamp::from_millis(at), &set, &mut told);
        };
        take(&mut viewer, 1_000_030, "e=ps,sn=0,sta=p,ts=1000000");
        for second in 1_u64..=10 {
            let at = Timestamp::from_millis(1_000_000 + second * 1_000);
            viewer.asked = at.millis();
            viewer.sweep(at, false, &mut told);
        }
        assert_eq!((told.exposure_millis, told.stalled_millis), (7_970, 0));
        let mut take = |at, text: &str| {
            let set = Cmcd::parse(text.as_bytes()).expect("v2");
            viewer.event(Timestamp::from_millis(at), &set, &mut told);
        };
        take(1_010_100, "e=ps,sn=1,sta=r,ts=1004000");
        take(1_010_110, "e=ps,sn=2,sta=p,ts=1009500");
        take(1_020_030, "e=t,sn=3,sta=p,ts=1020000");
        assert_eq!((told.exposure_millis, told.stalled_millis, told.starts), (20_000, 5_500, 1));
    }

    #[test]
    fn waiting_for_the_place_that_was_sought_is_no_stall() {
        let reports = [
            "e=ps,sn=0,sta=p,ts=1000000",
            "e=ps,sn=1,sta=k,ts=1002000",
            "e=ps,sn=2,sta=r,ts=1002010",
            "e=ps,sn=3,sta=p,ts=1005000",
            "e=t,sn=4,sta=p,ts=1006000",
        ];
        let told = feed(&mut Viewer::default(), &reports);
        assert_eq!((told.exposure_millis, told.stalled_millis), (3_000, 0));
    }

    #[test]
    fn an_urgent_word_on_another_track_is_a_sign() {
        let mut viewer = Viewer::default();
        let mut told = PlaybackDelta::default();
        for (at, text) in [
            (0, "bl=2000,d=2000,ot=v"),
            (2_000, "bl=2000,d=2000,ot=v"),
            (4_000, "bl=2000,d=2000,ot=v"),
            (8_500, "bl=2000,d=2000,ot=a,su"),
            (9_000, "bl=1000,d=2000,ot=v"),
        ] {
            let set = Cmcd::parse(text.as_bytes()).expect("v1");
            viewer.request(Timestamp::from_millis(1_000_000 + at), &set, &mut told);
        }
        assert_eq!((told.stalled_millis, told.starts), (2_000, 1));
    }

    proptest! {
        #[test]
        fn any_reports_are_bounded(reports in proptest::collection::vec((0_u64..100_000, 0_u64..100_000, 0_u32..40, 0_usize..6, any::<bool>()), 0..80)) {
            let (mut viewer, mut told, mut now) = (Viewer::default(), PlaybackDelta::default(), 1_000_000);
            for (wait, ts, sn, state, sweeps) in reports {
                now += wait % 3_000;
                let state = ["s", "p", "r", "k", "a", "q"][state];
                let text = format!("e=ps,sn={sn},sta={state},ts={}", 1_000_000 + ts);
                viewer.event(Timestamp::from_millis(now), &Cmcd::parse(text.as_bytes()).expect("v2"), &mut told);
                if sweeps {
                    viewer.sweep(Timestamp::from_millis(now), false, &mut told);
                }
                prop_assert!(told.stalled_millis <= told.exposure_millis, "{told:?}");
            }
        }
    }

    #[test]
    fn a_viewer_is_small() {
        let clock = size_of::<PlayerStateClock>();
        assert!(size_of::<Viewer>() <= 80 && clock <= 110, "{} and {clock}", size_of::<Viewer>());
    }
}
