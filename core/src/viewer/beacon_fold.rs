//! Players' reports of all classes, folded so that each class becomes at most one observation a tick. Decides which
//! viewers are present, whom to forget, and how much of the tables one class may take; counts each report once.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::beacon_report::BeaconReport;
use super::beacon_viewer::{BeaconViewer, Refused};
use super::group_table::{GroupTable, Membership, Watched};
use super::origin::{GroupRules, Origin};
use crate::base::{Hashed, LatencyHistogram};
use crate::model::{Fact, GroupView, Name, Observation, PlayerView, SourceName, StreamKey, Timestamp};

/// Most viewers remembered. A class may hold as many as are free for others: 125,000 alone, so that there is always
/// room for a small class.
const MAX_VIEWERS: usize = 250_000;

/// Most classes folded at once.
const MAX_SESSIONS: usize = 4_000;

/// The reports since the last [`BeaconFold::drain`], and the viewers that sent them.
#[derive(Debug)]
pub struct BeaconFold {
    rules: GroupRules,
    source: SourceName,
    max_viewers: usize,
    classes: BTreeMap<Name, Class>,
    /// Viewers of all classes.
    viewers: usize,
}

/// A report on its way into the fold.
#[derive(Clone, Debug)]
pub struct Beacon<'a> {
    /// The class.
    pub session: &'a Name,
    /// A keyed hash of the viewer's id; the id itself is not kept.
    pub viewer: u64,
    /// The report.
    pub report: BeaconReport<'a>,
    /// Where it comes from; its player's name and protocol are taken from the report.
    pub origin: Origin<'a>,
    /// When it arrived.
    pub at: Timestamp,
}

/// What became of an accepted report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeaconOutcome {
    /// It was counted.
    Folded {
        /// Values left out because they were wrong.
        bad_values: u32,
        /// Groups of its viewer that the class has no room for: the viewer counts among the others of that kind.
        groups_left_out: u32,
    },
    /// It was received before: a player sends a report again when it gets no response.
    Repeated,
}

/// Why a report is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeaconRefused {
    /// It claims more time than passed.
    #[error("exposure: this viewer reports more time than has passed")]
    TooMuch,
    /// A table has no room.
    #[error("too many {0}; retry later")]
    Full(&'static str),
}

/// The fold of one class.
#[derive(Debug, Default)]
struct Class {
    sums: PlayerView,
    /// Whether a report was counted since the last drain.
    has_reports: bool,
    present: u32,
    viewers: HashMap<u64, BeaconViewer, Hashed>,
    groups: GroupTable,
    /// The second of the last [`Class::sweep`].
    swept: Option<u64>,
}

impl BeaconFold {
    /// An empty fold; `group_key` is the key under which viewers' networks are hashed.
    #[must_use]
    pub fn new(group_key: [u64; 2]) -> Self {
        Self {
            rules: GroupRules { key: group_key, ..GroupRules::default() },
            source: SourceName::from("beacon"),
            max_viewers: MAX_VIEWERS,
            classes: BTreeMap::new(),
            viewers: 0,
        }
    }

    /// Counts a report.
    ///
    /// # Errors
    /// [`BeaconRefused`]; nothing of a refused report is kept.
    pub fn add(&mut self, beacon: Beacon<'_>) -> Result<BeaconOutcome, BeaconRefused> {
        let Beacon { session, viewer: id, report, mut origin, at } = beacon;
        let free = self.max_viewers.saturating_sub(self.viewers);
        if !self.classes.contains_key(session) {
            if self.classes.len() >= MAX_SESSIONS {
                return Err(BeaconRefused::Full("classes"));
            }
            self.classes.insert(session.clone(), Class::default());
        }
        let class = self.classes.get_mut(session).ok_or(BeaconRefused::Full("classes"))?;
        let has_room = class.viewers.len() < free;
        let (viewer, is_new) = match class.viewers.entry(id) {
            Entry::Occupied(entry) => (entry.into_mut(), false),
            Entry::Vacant(entry) if has_room => (entry.insert(BeaconViewer::new(at)), true),
            Entry::Vacant(_) => return Err(BeaconRefused::Full("viewers of this class")),
        };
        self.viewers += usize::from(is_new);
        match viewer.accept(report.sequence, report.view.exposure, at) {
            Err(Refused::Repeated) => return Ok(BeaconOutcome::Repeated),
            Err(Refused::TooMuch) => return Err(BeaconRefused::TooMuch),
            Ok(()) => {}
        }
        if let Some(latency) = report.latency {
            viewer.set_latency(latency, at);
        } else if let Some(round_trip) = report.round_trip {
            viewer.set_round_trip(round_trip, at);
        }
        let mut groups_left_out = 0;
        if viewer.groups == Membership::UNKNOWN {
            (origin.player.reported, origin.player.protocol) = (report.player, report.view.protocol);
            (viewer.groups, groups_left_out) = class.groups.enter(&self.rules, &origin);
        }
        class.groups.add(viewer.groups, watched(&report.view));
        class.present += u32::from(is_new);
        class.add(report.view);
        Ok(BeaconOutcome::Folded { bad_values: report.bad_values, groups_left_out })
    }

    /// One observation of each class with reports since the last drain.
    pub fn drain(&mut self, now: Timestamp) -> Vec<Observation> {
        let mut out = Vec::new();
        let Self { source, classes, viewers, .. } = self;
        classes.retain(|session, class| {
            let before = class.viewers.len();
            let (latencies, groups) = class.sweep(now);
            *viewers = viewers.saturating_sub(before - class.viewers.len());
            if std::mem::take(&mut class.has_reports) || !groups.is_empty() {
                let (source, stream) = (Arc::clone(source), StreamKey::of_session(session.clone()));
                let fact = Fact::Players(Box::new(PlayerView { groups, ..class.take(latencies) }));
                out.push(Observation { source, stream, at: now, fact });
            }
            !class.viewers.is_empty()
        });
        out
    }

    /// Forgets everything, because the clock was set back and earlier timestamps are meaningless.
    pub fn clear(&mut self) {
        (self.classes, self.viewers) = (BTreeMap::new(), 0);
    }
}

impl Class {
    fn add(&mut self, view: PlayerView) {
        let sums = &mut self.sums;
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0).saturating_add(more));
            }
        };
        sums.protocol = view.protocol.or(sums.protocol);
        sums.exposure += view.exposure;
        sums.stalled += view.stalled;
        sums.stall_starts = sums.stall_starts.saturating_add(view.stall_starts);
        add(&mut sums.frames, view.frames);
        add(&mut sums.bytes, view.bytes);
        add(&mut sums.packets_expected, view.packets_expected);
        add(&mut sums.packets_lost, view.packets_lost);
        sums.first_frames.extend(view.first_frames);
        if let Some(messages) = &view.messages {
            sums.messages.get_or_insert_default().add(messages);
        }
        self.has_reports = true;
    }

    /// Once a second: counts who is present, forgets viewers, and gives the newest latency of each viewer and what
    /// groups of viewers reported.
    fn sweep(&mut self, now: Timestamp) -> (Option<LatencyHistogram>, Vec<GroupView>) {
        let second = now.nanos() / 1_000_000_000;
        if self.swept == Some(second) {
            return (None, Vec::new());
        }
        self.swept = Some(second);
        self.present = 0;
        let mut latencies = LatencyHistogram::default();
        self.viewers.retain(|_, viewer| {
            self.present += u32::from(viewer.is_present(now));
            viewer.latency(now).into_iter().for_each(|latency| latencies.record(latency));
            let stays = viewer.is_remembered(now);
            if !stays {
                self.groups.leave(viewer.groups);
            }
            stays
        });
        if self.viewers.capacity() > 4 * self.viewers.len() + SPARE_VIEWERS {
            self.viewers.shrink_to_fit();
        }
        let groups = self.groups.take(u32::try_from(self.viewers.len()).unwrap_or(u32::MAX));
        ((!latencies.is_empty()).then_some(latencies), groups)
    }

    /// The sums since the last drain; the protocol stays.
    fn take(&mut self, latencies: Option<LatencyHistogram>) -> PlayerView {
        let protocol = self.sums.protocol;
        let sums = std::mem::replace(&mut self.sums, PlayerView { protocol, ..PlayerView::default() });
        PlayerView { viewers: self.present, latencies, ..sums }
    }
}

fn watched(view: &PlayerView) -> Watched {
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    Watched { exposure_millis: millis(view.exposure), stalled_millis: millis(view.stalled), starts: view.stall_starts }
}

/// Room for so many viewers is kept when a class shrinks.
const SPARE_VIEWERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::Address;
    use super::super::beacon_report::{BeaconBody, MAX_EXPOSURE};
    use super::super::beacon_viewer::{PRESENT, REMEMBERED};
    use super::super::group_table::MAX_NAMED;
    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_000_000);
    const FOLDED: Result<BeaconOutcome, BeaconRefused> =
        Ok(BeaconOutcome::Folded { bad_values: 0, groups_left_out: 0 });
    const REPEATED: Result<BeaconOutcome, BeaconRefused> = Ok(BeaconOutcome::Repeated);

    /// Folds a report of one second.
    struct Player<'a> {
        session: &'a str,
        viewer: u64,
        origin: Origin<'a>,
        more: &'a str,
    }

    const PLAYER: Player<'static> = Player {
        session: "s1",
        viewer: 1,
        origin: Origin {
            address: Address::Unknown,
            region: b"",
            player: crate::viewer::PlayerName { reported: "", protocol: None, agent: b"" },
        },
        more: "",
    };

    impl Player<'_> {
        fn report(&self, fold: &mut BeaconFold, sequence: u32, at: Timestamp) -> Result<BeaconOutcome, BeaconRefused> {
            let Self { session, viewer, origin, more } = self;
            let body = format!(
                r#"{{"sessionId":"{session}","viewer":"v{viewer}","sequence":{sequence},"exposure":1.0{more}}}"#
            );
            let body = BeaconBody::parse(body.as_bytes()).expect("well formed");
            let session = body.session().expect("a name");
            let report = body.report().expect("good values");
            fold.add(Beacon { session: &session, viewer: *viewer, report, origin: *origin, at })
        }
    }

    fn players(fold: &mut BeaconFold, now: Timestamp) -> Option<PlayerView> {
        let mut observations = fold.drain(now);
        assert!(observations.len() <= 1, "{observations:?}");
        match observations.pop()?.fact {
            Fact::Players(view) => Some(*view),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reports_fold_per_class() {
        let mut fold = BeaconFold::new([1, 2]);
        let more = r#","totalFreezesDuration":0.25,"packetsReceived":99,"packetsLost":1,"roundTripTime":0.3"#;
        for (viewer, sequence) in [(1, 0), (2, 0), (1, 1)] {
            assert_eq!(Player { viewer, more, ..PLAYER }.report(&mut fold, sequence, AT), FOLDED);
        }
        let view = players(&mut fold, AT).expect("one class with reports");
        assert_eq!(
            (view.viewers, view.exposure, view.stalled),
            (2, Duration::from_secs(3), Duration::from_millis(750))
        );
        assert_eq!((view.packets_expected, view.packets_lost), (Some(300), Some(3)));
        assert_eq!(view.latencies.as_ref().map(LatencyHistogram::len), Some(2));
        assert_eq!(view.latencies.and_then(|latencies| latencies.max_millis()), Some(150));
        assert!(fold.drain(AT).is_empty(), "nothing is counted twice");
    }

    #[test]
    fn a_repeated_report_counts_once() {
        let mut fold = BeaconFold::new([1, 2]);
        let outcomes = [1, 0, 1, 0, 2].map(|sequence| PLAYER.report(&mut fold, sequence, AT));
        assert_eq!(outcomes, [FOLDED, FOLDED, REPEATED, REPEATED, FOLDED]);
        assert_eq!(players(&mut fold, AT).expect("reports").exposure, Duration::from_secs(3));
        assert_eq!(PLAYER.report(&mut fold, 1, AT + Duration::from_secs(100)), REPEATED);
    }

    #[test]
    fn one_viewer_cannot_claim_more_time_than_passed() {
        let mut fold = BeaconFold::new([1, 2]);
        let accepted = (0..1_000).filter(|sequence| PLAYER.report(&mut fold, *sequence, AT).is_ok()).count();
        assert_eq!(accepted as u64, MAX_EXPOSURE.as_secs());
        assert_eq!(players(&mut fold, AT).expect("reports").exposure, MAX_EXPOSURE);
    }

    #[test]
    fn a_large_class_leaves_room_for_others() {
        const ROOM: usize = 1_000;
        let mut fold = BeaconFold { max_viewers: ROOM, ..BeaconFold::new([1, 2]) };
        let accepted = (0..ROOM as u64)
            .take_while(|viewer| Player { viewer: *viewer, ..PLAYER }.report(&mut fold, 0, AT).is_ok())
            .count();
        assert_eq!(accepted, ROOM / 2);
        assert_eq!(Player { session: "s2", ..PLAYER }.report(&mut fold, 0, AT), FOLDED);
    }

    #[test]
    fn viewers_of_networks_beyond_the_bound_are_counted_as_left_out() {
        let mut fold = BeaconFold::new([1, 2]);
        let mut groups_left_out = 0;
        for network in 0..=MAX_NAMED as u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + (network << 8));
            let origin = Origin { address: Address::Known(address.into()), ..PLAYER.origin };
            let outcome = Player { viewer: u64::from(network), origin, ..PLAYER }.report(&mut fold, 0, AT);
            assert_eq!(outcome, Ok(BeaconOutcome::Folded { bad_values: 0, groups_left_out }), "{network}");
            groups_left_out = u32::from(network + 1 == MAX_NAMED as u32);
        }
    }

    #[test]
    fn silent_viewers_leave_and_are_forgotten_later() {
        let mut fold = BeaconFold::new([1, 2]);
        assert_eq!(PLAYER.report(&mut fold, 0, AT), FOLDED);
        assert_eq!(players(&mut fold, AT).map(|view| view.viewers), Some(1));
        let gone = AT + PRESENT + Duration::from_secs(1);
        assert_eq!(Player { viewer: 2, ..PLAYER }.report(&mut fold, 0, gone), FOLDED);
        assert_eq!(players(&mut fold, gone).map(|view| view.viewers), Some(1));
        fold.drain(gone + REMEMBERED + PRESENT);
        assert!(fold.classes.is_empty() && fold.viewers == 0);
    }

    #[test]
    fn a_cleared_fold_is_empty() {
        let mut fold = BeaconFold::new([1, 2]);
        assert_eq!(PLAYER.report(&mut fold, 0, AT), FOLDED);
        fold.clear();
        assert!(fold.drain(AT).is_empty());
        assert_eq!(PLAYER.report(&mut fold, 0, AT), FOLDED);
    }
}
