//! What players report of themselves: `POST /v1/beacon`, sums since the last report in the terms of W3C webrtc-stats.
//! Decides who may speak for a class (a signed, expiring token) and folds reports per class before anyone observes
//! them; refuses what is unsigned, malformed, repeated or beyond its bounds, with an answer that says so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use liveqos_core::base::LatencyHistogram;
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Fact, GroupView, Name, Observation, PlayerView, SourceName, StreamKey, Timestamp};
use liveqos_core::viewer::{GroupRules, GroupTable, Membership, Origin, Watched};

use super::beacon_report::{MAX_REPORT, Malformed, Report, Said};
use super::beacon_viewer::{Refused, Viewer};
use super::ended_sessions::EndedSessions;
use super::token::{Key, TokenError};
use crate::http::{ApiError, argument, bearer, retry_later};
use crate::intake::access_log::Requester;
use crate::platform::{SelfMetrics, clock};

/// Most viewers remembered. A class may hold as many as are free for others: 125,000 alone, and there is always room
/// for a small one.
pub(super) const MAX_VIEWERS: usize = 250_000;

/// Most classes that are folded at once.
pub(super) const MAX_SESSIONS: usize = 4_000;

/// The reports of all classes since the last fold.
#[derive(Debug)]
pub struct Beacons {
    key: Option<Key>,
    ended: Arc<EndedSessions>,
    source: SourceName,
    hasher: RandomState,
    rules: GroupRules,
    room: usize,
    table: Mutex<Table>,
    epoch: Mutex<clock::Epoch>,
}

#[derive(Debug, Default)]
struct Table {
    folds: BTreeMap<Name, Fold>,
    viewers: usize,
}

#[derive(Debug, Default)]
struct Fold {
    view: PlayerView,
    told: bool,
    present: u32,
    viewers: HashMap<u64, Viewer>,
    groups: GroupTable,
    looked: Option<u64>,
}

/// What became of a good report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was folded.
    Folded {
        /// So many of its values were left out because they were wrong.
        bad_values: u32,
        /// So many of its viewer's groups have no room among those of the class: it counts among the others there.
        groups_left_out: u32,
    },
    /// It came before: a player sends a report again when the answer does not reach it.
    Repeated,
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No key is configured.
    #[error("beacons are closed on this node: beacon.key_file is not set")]
    Closed,
    /// The token does not fit.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The platform ended the class.
    #[error("the class is over; stop reporting")]
    EndedSessions,
    /// The body is too long.
    #[error("a report has at most {MAX_REPORT} bytes")]
    TooLarge,
    /// The report does not fit.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It speaks for more time than passed.
    #[error("exposure: this viewer reports more time than has passed")]
    TooMuch,
    /// A bound is reached.
    #[error("too many {0}; come again later")]
    Full(&'static str),
}

impl Beacons {
    /// A fold of reports signed with `key`; without one nobody may report, and nobody of a class that `ended`. Viewers'
    /// networks are hashed under `group_key`.
    #[must_use]
    pub fn new(key: Option<Key>, group_key: [u64; 2], ended: Arc<EndedSessions>) -> Self {
        Self {
            key,
            ended,
            source: SourceName::from("beacon"),
            hasher: RandomState::new(),
            rules: GroupRules { key: group_key, ..GroupRules::default() },
            room: MAX_VIEWERS,
            table: Mutex::default(),
            epoch: Mutex::default(),
        }
    }

    /// Takes one report, that came from `sender`.
    ///
    /// # Errors
    /// [`ReportError`]; nothing of a refused report is kept.
    pub fn report(
        &self,
        body: &[u8],
        token: Option<&str>,
        sender: &Requester,
        at: Timestamp,
    ) -> Result<Taken, ReportError> {
        let key = self.key.as_ref().ok_or(ReportError::Closed)?;
        if body.len() > MAX_REPORT {
            return Err(ReportError::TooLarge);
        }
        let report = Report::read(body)?;
        let session = report.session()?;
        key.check(token.unwrap_or_default(), session.as_str(), at)?;
        if self.ended.contains(&session, at) {
            return Err(ReportError::EndedSessions);
        }
        let said = report.said()?;
        // A keyed hash of this process: the viewer's mark itself is not kept.
        let mark = self.hasher.hash_one(report.viewer());
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (viewer, is_new) = table.viewer(&session, mark, at, self.room)?;
        match viewer.take(report.sequence(), said.view.exposure, at) {
            Err(Refused::Repeated) => return Ok(Taken::Repeated),
            Err(Refused::TooMuch) => return Err(ReportError::TooMuch),
            Ok(()) => {}
        }
        if let Some(latency) = said.latency {
            viewer.delivered_after(latency, at);
        } else if let Some(round_trip) = said.round_trip {
            viewer.round_trip(round_trip, at);
        }
        let Said { view, player, bad_values, .. } = said;
        let mut groups_left_out = 0;
        if let Some(fold) = table.folds.get_mut(&session) {
            fold.present += u32::from(is_new);
            groups_left_out = fold.group(mark, &view, || {
                let mut origin = sender.origin();
                (origin.player.told, origin.player.protocol) = (player, view.protocol);
                (&self.rules, origin)
            });
            fold.add(view);
        }
        Ok(Taken::Folded { bad_values, groups_left_out })
    }

    /// What was told since the last drain, one observation a class that told something.
    pub fn drain(&self, now: Timestamp) -> Vec<Observation> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if self.epoch.lock().unwrap_or_else(PoisonError::into_inner).is_new() {
            *table = Table::default();
        }
        let mut out = Vec::new();
        let Table { folds, viewers } = &mut *table;
        folds.retain(|session, fold| {
            let (latencies, groups) = fold.look(now, viewers);
            if std::mem::take(&mut fold.told) || !groups.is_empty() {
                let (source, stream) = (Arc::clone(&self.source), StreamKey::of_session(session.clone()));
                let fact = Fact::Players(Box::new(PlayerView { groups, ..fold.take(latencies) }));
                out.push(Observation { source, stream, at: now, fact });
            }
            !fold.viewers.is_empty()
        });
        out
    }
}

impl Table {
    /// The viewer of this mark, remembered from now on, and whether it is new; `room` is for all viewers.
    fn viewer(
        &mut self,
        session: &Name,
        mark: u64,
        at: Timestamp,
        room: usize,
    ) -> Result<(&mut Viewer, bool), ReportError> {
        let free = room.saturating_sub(self.viewers);
        if !self.folds.contains_key(session) {
            if self.folds.len() >= MAX_SESSIONS {
                return Err(ReportError::Full("classes"));
            }
            self.folds.insert(session.clone(), Fold::default());
        }
        let fold = self.folds.get_mut(session).ok_or(ReportError::Full("classes"))?;
        let has_room = fold.viewers.len() < free;
        match fold.viewers.entry(mark) {
            Entry::Occupied(entry) => Ok((entry.into_mut(), false)),
            Entry::Vacant(entry) if has_room => {
                self.viewers += 1;
                Ok((entry.insert(Viewer::new(at)), true))
            }
            Entry::Vacant(_) => Err(ReportError::Full("viewers of this class")),
        }
    }
}

impl Fold {
    /// Counts a viewer's report for its groups, by `origin` where they are not known yet; gives how many of them have
    /// no room.
    fn group<'a>(
        &mut self,
        mark: u64,
        view: &PlayerView,
        origin: impl FnOnce() -> (&'a GroupRules, Origin<'a>),
    ) -> u32 {
        let Some(viewer) = self.viewers.get_mut(&mark) else {
            return 0;
        };
        let mut left_out = 0;
        if viewer.groups == Membership::UNKNOWN {
            let (rules, origin) = origin();
            (viewer.groups, left_out) = self.groups.enter(rules, &origin);
        }
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let (exposure_millis, stalled_millis) = (millis(view.exposure), millis(view.stalled));
        self.groups.add(viewer.groups, Watched { exposure_millis, stalled_millis, starts: view.stall_starts });
        left_out
    }

    fn add(&mut self, view: PlayerView) {
        let sum = &mut self.view;
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0).saturating_add(more));
            }
        };
        sum.protocol = view.protocol.or(sum.protocol);
        sum.exposure += view.exposure;
        sum.stalled += view.stalled;
        sum.stall_starts = sum.stall_starts.saturating_add(view.stall_starts);
        add(&mut sum.frames, view.frames);
        add(&mut sum.bytes, view.bytes);
        add(&mut sum.packets_expected, view.packets_expected);
        add(&mut sum.packets_lost, view.packets_lost);
        sum.first_frames.extend(view.first_frames);
        if let Some(messages) = &view.messages {
            sum.messages.get_or_insert_default().add(messages);
        }
        self.told = true;
    }

    /// Once a second: who is present, who is forgotten, the latest latency of every viewer, and what groups of them
    /// told.
    fn look(&mut self, now: Timestamp, remembered: &mut usize) -> (Option<LatencyHistogram>, Vec<GroupView>) {
        let second = now.nanos() / 1_000_000_000;
        if self.looked == Some(second) {
            return (None, Vec::new());
        }
        self.looked = Some(second);
        self.present = 0;
        let mut latencies = LatencyHistogram::default();
        let before = self.viewers.len();
        self.viewers.retain(|_, viewer| {
            self.present += u32::from(viewer.is_present(now));
            viewer.latency(now).into_iter().for_each(|latency| latencies.record(latency));
            let stays = viewer.is_remembered(now);
            if !stays {
                self.groups.leave(viewer.groups);
            }
            stays
        });
        *remembered = remembered.saturating_sub(before - self.viewers.len());
        if self.viewers.capacity() > 4 * self.viewers.len() + FEW {
            self.viewers.shrink_to_fit();
        }
        let groups = self.groups.take(u32::try_from(self.viewers.len()).unwrap_or(u32::MAX));
        ((!latencies.is_empty()).then_some(latencies), groups)
    }

    fn take(&mut self, latencies: Option<LatencyHistogram>) -> PlayerView {
        let protocol = self.view.protocol;
        let view = std::mem::replace(&mut self.view, PlayerView { protocol, ..PlayerView::default() });
        PlayerView { viewers: self.present, latencies, ..view }
    }
}

/// Answers `POST /v1/beacon` of the viewer at this address.
pub(super) fn handle(
    beacons: &Beacons,
    meters: &SelfMetrics,
    viewer: Option<IpAddr>,
    request: &Request<Bytes>,
) -> Response {
    // sendBeacon() can set no header.
    let asked = || argument(request.uri().query().unwrap_or_default(), "token").map(Cow::Owned);
    let token = bearer(request.headers()).map(Cow::Borrowed).or_else(asked);
    let sender = Requester::of(viewer, request.headers());
    let error = match beacons.report(request.body(), token.as_deref(), &sender, clock::now()) {
        Ok(taken) => {
            match taken {
                Taken::Folded { bad_values, groups_left_out } => {
                    meters.shed(ShedReason::BeaconBadValue, u64::from(bad_values));
                    meters.shed(ShedReason::BeaconGroups, u64::from(groups_left_out));
                }
                Taken::Repeated => meters.shed(ShedReason::BeaconRepeated, 1),
            }
            return StatusCode::NO_CONTENT.into_response();
        }
        Err(error) => error,
    };
    let (status, code, reason) = match &error {
        ReportError::Closed => (StatusCode::NOT_FOUND, "closed", ShedReason::BeaconClosed),
        ReportError::Token(TokenError::Expired) => (StatusCode::GONE, "expired", ShedReason::BeaconExpired),
        ReportError::Token(_) => (StatusCode::UNAUTHORIZED, "bad_token", ShedReason::BeaconBadToken),
        ReportError::EndedSessions => (StatusCode::GONE, "ended", ShedReason::BeaconEnded),
        ReportError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", ShedReason::BeaconTooLarge),
        ReportError::Malformed(_) => (StatusCode::BAD_REQUEST, "bad_report", ShedReason::BeaconBadReport),
        ReportError::TooMuch => (StatusCode::BAD_REQUEST, "too_much", ShedReason::BeaconTooMuch),
        ReportError::Full(_) => (StatusCode::TOO_MANY_REQUESTS, "full", ShedReason::BeaconFull),
    };
    meters.shed(reason, 1);
    if status == StatusCode::TOO_MANY_REQUESTS {
        return retry_later(code, &error.to_string(), COME_AGAIN);
    }
    ApiError::new(status, code, error.to_string()).into_response()
}

/// When a player that found no room may try again.
const COME_AGAIN: Duration = Duration::from_secs(30);
/// Room for so many viewers is not given back.
const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use liveqos_core::viewer::MAX_NAMED;

    use super::super::beacon_report::MAX_SPAN;
    use super::super::beacon_viewer;
    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_000_000);
    const ROOM: usize = 1_000;
    const FOLDED: Taken = Taken::Folded { bad_values: 0, groups_left_out: 0 };

    fn beacons() -> (Beacons, String) {
        let key = Key::new(b"a key of at least thirty-two bytes").expect("long enough");
        let token = key.sign("s1", AT + Duration::from_mins(1));
        (Beacons::new(Some(key), [1, 2], Arc::default()), token)
    }

    fn from() -> Requester {
        Requester::default()
    }

    fn report(viewer: &str, sequence: u32, more: &str) -> Vec<u8> {
        format!(r#"{{"sessionId":"s1","viewer":"{viewer}","sequence":{sequence},"exposure":1.0{more}}}"#).into_bytes()
    }

    fn players(beacons: &Beacons, now: Timestamp) -> Option<PlayerView> {
        let mut observations = beacons.drain(now);
        assert!(observations.len() <= 1, "{observations:?}");
        match observations.pop()?.fact {
            Fact::Players(view) => Some(*view),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reports_fold_per_class() {
        let (beacons, token) = beacons();
        for (viewer, sequence) in [("a", 0), ("b", 0), ("a", 1)] {
            let more = r#","totalFreezesDuration":0.25,"packetsReceived":99,"packetsLost":1,"roundTripTime":0.3"#;
            let taken = beacons.report(&report(viewer, sequence, more), Some(&token), &from(), AT).expect("good");
            assert_eq!(taken, FOLDED);
        }
        let view = players(&beacons, AT).expect("one class told");
        assert_eq!(
            (view.viewers, view.exposure, view.stalled),
            (2, Duration::from_secs(3), Duration::from_millis(750))
        );
        assert_eq!((view.packets_expected, view.packets_lost), (Some(300), Some(3)));
        assert_eq!(view.latencies.as_ref().map(LatencyHistogram::len), Some(2));
        assert_eq!(view.latencies.and_then(|latencies| latencies.max_millis()), Some(150));
        assert!(beacons.drain(AT).is_empty(), "nothing is told twice");
    }

    #[test]
    fn a_report_that_comes_again_counts_once() {
        let (beacons, token) = beacons();
        let bodies: Vec<_> = [1, 0, 1, 0, 2].map(|sequence| report("a", sequence, "")).into();
        let taken: Vec<_> = bodies
            .iter()
            .map(|body| beacons.report(body, Some(&token), &from(), AT).expect("answered with success"))
            .collect();
        let (folded, repeated) = (FOLDED, Taken::Repeated);
        assert_eq!(taken, [folded, folded, repeated, repeated, folded]);
        assert_eq!(players(&beacons, AT).expect("told").exposure, Duration::from_secs(3));
        let later = AT + Duration::from_secs(100);
        let key = Key::new(b"a key of at least thirty-two bytes").expect("long enough");
        let token = key.sign("s1", later);
        assert_eq!(beacons.report(&bodies[0], Some(&token), &from(), later).expect("known"), Taken::Repeated);
    }

    #[test]
    fn a_stranger_or_nonsense_changes_nothing() {
        let (beacons, token) = beacons();
        let long = format!(r#","x":"{}""#, "x".repeat(MAX_REPORT));
        let bad = [
            (report("a", 0, ""), None),
            (report("a", 0, ""), Some("1.00")),
            (report("a", 0, &long), Some(token.as_str())),
            (br#"{"sessionId":"other","viewer":"a","sequence":0,"exposure":1}"#.to_vec(), Some(token.as_str())),
            (br#"{"sessionId":"s1","viewer":"a","sequence":0,"exposure":1e300}"#.to_vec(), Some(token.as_str())),
            (b"[".to_vec(), Some(token.as_str())),
        ];
        for (body, token) in bad {
            assert!(beacons.report(&body, token, &from(), AT).is_err(), "{}", String::from_utf8_lossy(&body));
        }
        let later = AT + Duration::from_hours(1);
        assert!(beacons.report(&report("a", 0, ""), Some(&token), &from(), later).is_err(), "expired");
        let closed = Beacons::new(None, [1, 2], Arc::default()).report(&report("a", 0, ""), Some(&token), &from(), AT);
        assert!(matches!(closed, Err(ReportError::Closed)));
        assert!(beacons.drain(AT).is_empty());
    }

    #[test]
    fn of_a_class_that_ended_nothing_is_taken() {
        let (beacons, token) = beacons();
        beacons.ended.record(&Name::new("s1").expect("a name"), AT);
        assert!(matches!(
            beacons.report(&report("a", 0, ""), Some(&token), &from(), AT),
            Err(ReportError::EndedSessions)
        ));
    }

    #[test]
    fn one_viewer_cannot_make_up_time() {
        let (beacons, token) = beacons();
        let told = (0..1_000)
            .filter(|&sequence| beacons.report(&report("a", sequence, ""), Some(&token), &from(), AT).is_ok());
        assert_eq!(told.count() as u64, MAX_SPAN.as_secs());
        assert_eq!(players(&beacons, AT).expect("told").exposure, MAX_SPAN);
    }

    #[test]
    fn a_crowded_class_leaves_room_for_others() {
        let (beacons, token) = beacons();
        let beacons = Beacons { room: ROOM, ..beacons };
        let mut crowd =
            (0..ROOM).map(|viewer| beacons.report(&report(&viewer.to_string(), 0, ""), Some(&token), &from(), AT));
        assert_eq!(crowd.by_ref().take_while(Result::is_ok).count(), ROOM / 2);
        let token = Key::new(b"a key of at least thirty-two bytes").expect("long enough").sign("s2", AT);
        let other = String::from_utf8(report("z", 0, "")).expect("text").replace("s1", "s2");
        assert!(beacons.report(other.as_bytes(), Some(&token), &from(), AT).is_ok());
    }

    #[test]
    fn viewers_of_more_networks_than_are_told_apart_are_counted() {
        let (beacons, token) = beacons();
        let mut left_out = 0;
        for network in 0..=MAX_NAMED as u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + (network << 8));
            let sender = Requester { address: Some(address.into()), ..Requester::default() };
            let taken = beacons.report(&report(&network.to_string(), 0, ""), Some(&token), &sender, AT).expect("good");
            assert_eq!(taken, Taken::Folded { bad_values: 0, groups_left_out: left_out }, "{network}");
            left_out = u32::from(network + 1 == MAX_NAMED as u32);
        }
    }

    #[test]
    fn silent_viewers_leave_and_are_forgotten_later() {
        let (beacons, token) = beacons();
        beacons.report(&report("a", 0, ""), Some(&token), &from(), AT).expect("good");
        assert_eq!(players(&beacons, AT).map(|view| view.viewers), Some(1));
        let gone = AT + beacon_viewer::PRESENT + Duration::from_secs(1);
        beacons.report(&report("b", 0, ""), Some(&token), &from(), gone).expect("good");
        assert_eq!(players(&beacons, gone).map(|view| view.viewers), Some(1));
        beacons.drain(gone + beacon_viewer::REMEMBERED + beacon_viewer::PRESENT);
        let table = beacons.table.lock().expect("not poisoned");
        assert!(table.folds.is_empty() && table.viewers == 0);
    }
}
