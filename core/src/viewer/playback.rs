//! One viewer and which of its reports count. State events take precedence over buffer lengths, and video over audio;
//! an urgent request of any type is a sign for the measured one.

use super::buffer_stall::{BufferReading, BufferStall};
use super::delta::PlaybackDelta;
use super::state_stall::{PlayerStateClock, StateReport};
use crate::cmcd::{Cmcd, Event, ObjectType, State};
use crate::model::Timestamp;

/// The state of a viewer: no identifier, and a fixed size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Viewer {
    /// Handle of its class in the class table.
    pub(crate) session: u32,
    /// Whether its start time was recorded.
    pub(crate) started: bool,
    /// When it was last seen, Unix milliseconds of the log.
    pub(crate) seen: u64,
    /// When it made its last request, Unix milliseconds.
    last_request: u64,
    track: Option<ObjectType>,
    /// Whether a request of another type was urgent since the last reading.
    urgent: bool,
    buffer: BufferStall,
    /// Only of viewers that post event reports.
    clock: Option<Box<PlayerStateClock>>,
}

impl Viewer {
    /// A viewer of this class without reports.
    pub(crate) fn of(session: u32) -> Self {
        Self { session, ..Self::default() }
    }

    /// Folds a request made at `at`.
    pub(crate) fn request(&mut self, at: Timestamp, cmcd: &Cmcd<'_>, delta: &mut PlaybackDelta) {
        self.seen = self.seen.max(at.millis());
        self.last_request = self.last_request.max(at.millis());
        let is_media = matches!(cmcd.ot, None | Some(ObjectType::Audio | ObjectType::Video | ObjectType::Muxed));
        if !is_media || self.clock.as_ref().is_some_and(|clock| clock.has_state()) {
            return;
        }
        let urgent = cmcd.bs || cmcd.su || cmcd.sta == Some(State::Rebuffering);
        let Some((bl, d)) = Self::buffer(cmcd) else {
            // What this object added to the buffer is not known, so there is nothing to compare the next one with.
            if cmcd.d.is_some() && self.track == cmcd.ot {
                self.buffer = BufferStall::default();
            }
            return;
        };
        if self.track != cmcd.ot {
            // Video takes precedence over audio; mixing types would compare two buffers.
            if self.track == Some(ObjectType::Video) {
                self.urgent |= urgent;
                self.buffer.other_track(at.millis(), bl, d);
                return;
            }
            (self.track, self.buffer) = (cmcd.ot, BufferStall::default());
        }
        let rebuffers = cmcd.sta == Some(State::Rebuffering);
        let starting = matches!(cmcd.sta, Some(State::Starting | State::Preloading));
        let playing = cmcd.sta == Some(State::Playing);
        let reading = BufferReading {
            at: at.millis(),
            bl,
            d,
            rate: cmcd.pr_thousandths.unwrap_or(1_000),
            latency: cmcd.ltc.and_then(std::num::NonZeroU32::new),
            starving: urgent || self.urgent,
            starting: starting || (cmcd.su && !rebuffers && !playing),
            playing,
        };
        self.urgent = false;
        let hidden = cmcd.bg == Some(true);
        if hidden || cmcd.pr_thousandths == Some(0) || cmcd.sta == Some(State::Paused) {
            self.buffer.pause(reading, hidden, delta);
        } else {
            self.buffer.update(reading, delta);
        }
    }

    /// Buffer length and duration of the object. shaka-player 5.2 omits `bl` where nothing is buffered, and sends
    /// `dl=0`.
    fn buffer(cmcd: &Cmcd<'_>) -> Option<(u32, u32)> {
        let empty = cmcd.dl.filter(|deadline| *deadline == 0);
        Some((cmcd.bl.of(cmcd.ot).or(empty)?, cmcd.d?))
    }

    /// Folds an event report that arrived at `at`.
    pub(crate) fn event(&mut self, at: Timestamp, cmcd: &Cmcd<'_>, delta: &mut PlaybackDelta) {
        self.seen = self.seen.max(at.millis());
        let Some(ts) = cmcd.ts else {
            return;
        };
        let has_own_time = cmcd.e != Some(Event::Response);
        let report = StateReport {
            // The time of a response report is when its request began: its state is of another time.
            state: cmcd.sta.filter(|_| has_own_time),
            // `bg` is sent only where it is true; dash.js 5.2 sends it with requests only.
            hidden: cmcd.bg.or(matches!(cmcd.e, Some(Event::Background | Event::Response)).then_some(false)),
            total_stall: cmcd.bsda.of(None),
            has_own_time,
        };
        self.clock.get_or_insert_default().report((at.millis(), ts), cmcd.sn, delta, report);
    }

    /// Counts up to `now`, less an allowance for late reports; with `last`, when nothing more will come, up to the last
    /// report.
    pub(crate) fn sweep(&mut self, now: Timestamp, last: bool, delta: &mut PlaybackDelta) {
        if let Some(clock) = &mut self.clock {
            clock.sweep(now.millis(), self.last_request, last, delta);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(viewer: &mut Viewer, at: u64, text: &str, delta: &mut PlaybackDelta) {
        let cmcd = Cmcd::parse(text.as_bytes()).expect("v2");
        viewer.event(Timestamp::from_millis(at), &cmcd, delta);
    }

    fn feed(viewer: &mut Viewer, reports: &[&str]) -> PlaybackDelta {
        let mut delta = PlaybackDelta::default();
        for report in reports {
            let cmcd = Cmcd::parse(report.as_bytes()).expect("v2");
            let at = Timestamp::from_millis(cmcd.ts.expect("a ts") + 30);
            viewer.event(at, &cmcd, &mut delta);
        }
        let seen = Timestamp::from_millis(viewer.seen);
        viewer.sweep(seen, true, &mut delta);
        delta
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
    fn startup_does_not_count_and_a_stall_counts_in_full() {
        let delta = feed(&mut Viewer::default(), &PLAY);
        assert_eq!((delta.exposure_millis, delta.stalled_millis, delta.starts), (19_970, 1_000, 1));
        assert_eq!((delta.repeated, delta.lost), (0, 0));
    }

    #[test]
    fn repeated_and_reordered_reports_give_the_same() {
        let shuffled = [PLAY[0], PLAY[2], PLAY[1], PLAY[1], PLAY[3], PLAY[3], PLAY[5], PLAY[4], PLAY[5]];
        let delta = feed(&mut Viewer::default(), &shuffled);
        let in_order = feed(&mut Viewer::default(), &PLAY);
        assert_eq!((delta.stalled_millis, delta.starts), (in_order.stalled_millis, 1));
        assert_eq!((delta.exposure_millis, delta.repeated), (in_order.exposure_millis, 3));
    }

    #[test]
    fn a_state_that_is_overtaken_by_many_reports_is_found() {
        // Behind a narrow link, response reports overtake the report of the stall itself.
        let (mut viewer, mut delta) = (Viewer::default(), PlaybackDelta::default());
        let mut event_at = |at, text: &str| event(&mut viewer, at, text, &mut delta);
        event_at(1_000_030, "e=ps,sn=0,sta=p,ts=1000000");
        for sn in 2..=8 {
            event_at(1_011_000, &format!("e=rr,sn={sn},sta=r,ts=1009000"));
        }
        event_at(1_011_100, "e=ps,sn=9,sta=p,ts=1011000");
        event_at(1_012_000, "e=ps,sn=1,sta=r,ts=1008000");
        event_at(1_020_030, "e=t,sn=10,sta=p,ts=1020000");
        assert_eq!((delta.exposure_millis, delta.stalled_millis, delta.starts), (20_000, 3_000, 1));
        assert_eq!((delta.repeated, delta.lost), (0, 0));
    }

    #[test]
    fn the_background_is_recognised_in_reordered_reports() {
        // As dash.js sends them: two responses at once, then `bg` on those that follow, and none on the interval
        // report.
        for order in [[1, 2], [2, 1], [2, 2]] {
            let (mut viewer, mut delta) = (Viewer::default(), PlaybackDelta::default());
            let mut event_at = |at, text: &str| event(&mut viewer, at, text, &mut delta);
            event_at(1_000_030, "e=ps,sn=0,sta=p,ts=1000000");
            for sn in order {
                event_at(1_008_200, &format!("e=rr,sn={sn},sta=p,ts=1008200"));
            }
            for sn in 3..=8_u64 {
                let at = 1_008_000 + (sn - 2) * 1_000;
                event_at(at, &format!("bg,e=rr,sn={sn},sta=p,ts={at}"));
            }
            event_at(1_015_000, "e=rr,sn=9,sta=p,ts=1015000");
            event_at(1_020_000, "e=t,sn=10,sta=p,ts=1020000");
            viewer.sweep(Timestamp::from_millis(1_030_000), true, &mut delta);
            assert_eq!((delta.exposure_millis, delta.stalled_millis), (9_000 + 5_000, 0), "{order:?}");
        }
    }

    #[test]
    fn a_lost_report_is_repaired_from_the_total() {
        let lossy = [PLAY[0], PLAY[1], "bsda=(400),e=ps,sn=2,sta=p,ts=1000500", PLAY[5]];
        let delta = feed(&mut Viewer::default(), &lossy);
        assert_eq!((delta.stalled_millis, delta.lost), (1_000, 2));
    }

    #[test]
    fn pause_seek_and_background_are_not_exposure() {
        let delta = feed(
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
        assert_eq!((delta.exposure_millis, delta.stalled_millis), (3_000, 0));
    }

    #[test]
    fn an_open_stall_counts_while_it_lasts() {
        let mut viewer = Viewer::default();
        let mut delta = PlaybackDelta::default();
        for report in ["e=ps,sn=0,sta=p,ts=1000000", "e=ps,sn=1,sta=r,ts=1001000"] {
            let cmcd = Cmcd::parse(report.as_bytes()).expect("v2");
            viewer.event(Timestamp::from_millis(cmcd.ts.expect("a ts")), &cmcd, &mut delta);
        }
        viewer.sweep(Timestamp::from_millis(1_006_000), false, &mut delta);
        assert_eq!((delta.stalled_millis, delta.exposure_millis), (3_000, 4_000));
        viewer.sweep(Timestamp::from_millis(1_090_000), false, &mut delta);
        assert_eq!(delta.stalled_millis, 4_000, "an open stall ends without reports");
    }

    #[test]
    fn a_stall_reported_late_is_found() {
        // All but the first two arrived when the link was back: until then it seemed to play.
        let mut viewer = Viewer::default();
        let mut delta = PlaybackDelta::default();
        let mut event_at = |viewer: &mut Viewer, at, text: &str| {
            let cmcd = Cmcd::parse(text.as_bytes()).expect("v2");
            viewer.event(Timestamp::from_millis(at), &cmcd, &mut delta);
        };
        event_at(&mut viewer, 1_000_030, "e=ps,sn=0,sta=p,ts=1000000");
        for second in 1_u64..=10 {
            let at = Timestamp::from_millis(1_000_000 + second * 1_000);
            viewer.last_request = at.millis();
            viewer.sweep(at, false, &mut delta);
        }
        assert_eq!((delta.exposure_millis, delta.stalled_millis), (7_970, 0));
        let mut event_at = |at, text: &str| {
            let cmcd = Cmcd::parse(text.as_bytes()).expect("v2");
            viewer.event(Timestamp::from_millis(at), &cmcd, &mut delta);
        };
        event_at(1_010_100, "e=ps,sn=1,sta=r,ts=1004000");
        event_at(1_010_110, "e=ps,sn=2,sta=p,ts=1009500");
        event_at(1_020_030, "e=t,sn=3,sta=p,ts=1020000");
        assert_eq!((delta.exposure_millis, delta.stalled_millis, delta.starts), (20_000, 5_500, 1));
    }

    #[test]
    fn waiting_after_a_seek_is_no_stall() {
        let reports = [
            "e=ps,sn=0,sta=p,ts=1000000",
            "e=ps,sn=1,sta=k,ts=1002000",
            "e=ps,sn=2,sta=r,ts=1002010",
            "e=ps,sn=3,sta=p,ts=1005000",
            "e=t,sn=4,sta=p,ts=1006000",
        ];
        let delta = feed(&mut Viewer::default(), &reports);
        assert_eq!((delta.exposure_millis, delta.stalled_millis), (3_000, 0));
    }

    #[test]
    fn an_urgent_request_of_another_track_is_a_sign() {
        let mut viewer = Viewer::default();
        let mut delta = PlaybackDelta::default();
        for (at, text) in [
            (0, "bl=2000,d=2000,ot=v"),
            (2_000, "bl=2000,d=2000,ot=v"),
            (4_000, "bl=2000,d=2000,ot=v"),
            (8_500, "bl=2000,d=2000,ot=a,su"),
            (9_000, "bl=1000,d=2000,ot=v"),
        ] {
            let cmcd = Cmcd::parse(text.as_bytes()).expect("v1");
            viewer.request(Timestamp::from_millis(1_000_000 + at), &cmcd, &mut delta);
        }
        assert_eq!((delta.stalled_millis, delta.starts), (2_000, 1));
    }

    proptest! {
        #[test]
        fn any_reports_are_bounded(reports in proptest::collection::vec((0_u64..100_000, 0_u64..100_000, 0_u32..40, 0_usize..6, any::<bool>()), 0..80)) {
            let (mut viewer, mut delta, mut now) = (Viewer::default(), PlaybackDelta::default(), 1_000_000);
            for (wait, ts, sn, state, sweeps) in reports {
                now += wait % 3_000;
                let state = ["s", "p", "r", "k", "a", "q"][state];
                let text = format!("e=ps,sn={sn},sta={state},ts={}", 1_000_000 + ts);
                viewer.event(Timestamp::from_millis(now), &Cmcd::parse(text.as_bytes()).expect("v2"), &mut delta);
                if sweeps {
                    viewer.sweep(Timestamp::from_millis(now), false, &mut delta);
                }
                prop_assert!(delta.stalled_millis <= delta.exposure_millis, "{delta:?}");
            }
        }
    }

    #[test]
    fn a_viewer_is_small() {
        let clock = size_of::<PlayerStateClock>();
        assert!(size_of::<Viewer>() <= 80 && clock <= 110, "{} and {clock}", size_of::<Viewer>());
    }
}
