//! What players report of themselves: `POST /v1/beacon`, sums since the last report in the terms of W3C webrtc-stats. Decides who may
//! speak for a class (a signed, expiring token) and folds reports per class before anyone observes them; refuses what is unsigned,
//! malformed or beyond its bounds, with an answer that says so.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use liveqos_core::latencies::Latencies;
use liveqos_core::observation::{Fact, Observation, PlayerView, SourceName};
use liveqos_core::session::{Name, Protocol, StreamKey};
use liveqos_core::time::Timestamp;
use serde::Deserialize;

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::clock;
use crate::token::{Key, TokenError};

/// Most viewers remembered of one class.
pub const MAX_VIEWERS: usize = 120_000;

/// Most classes that are folded at once.
pub const MAX_SESSIONS: usize = 4_000;

/// Longest span one report may speak for.
pub const MAX_SPAN: Duration = Duration::from_mins(1);

/// A viewer that says nothing for so long is gone.
pub const VIEWER_KEPT: Duration = Duration::from_secs(12);

/// One report: sums since the same viewer's last one. Names, units (seconds, bytes, packets) and meaning as `inbound-rtp` of W3C
/// webrtc-stats, where it has them; a value the player does not know is left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The class.
    #[serde(alias = "session_id")]
    session_id: String,
    /// The viewer's own opaque mark, new for each viewing.
    viewer: String,
    /// How the class is delivered.
    protocol: Option<Protocol>,
    /// Seconds in playing or stalled state.
    exposure: f64,
    /// Freezes or stalls that began.
    freeze_count: Option<u32>,
    /// Seconds frozen or stalled, a still open gap included.
    total_freezes_duration: Option<f64>,
    /// Frames decoded.
    frames_decoded: Option<u64>,
    /// Media bytes received.
    bytes_received: Option<u64>,
    /// Packets received.
    packets_received: Option<u64>,
    /// Packets lost before repair; may be negative by RFC 3550.
    packets_lost: Option<i64>,
    /// Delivery latency now, in seconds.
    delivery_latency: Option<f64>,
    /// Seconds from asking to the first frame, in the first report that knows it.
    first_frame: Option<f64>,
}

/// The reports of all classes since the last fold.
#[derive(Debug)]
pub struct Beacons {
    key: Option<Key>,
    source: SourceName,
    hasher: RandomState,
    folds: Mutex<BTreeMap<Name, Fold>>,
    epoch: Mutex<clock::Epoch>,
}

#[derive(Debug, Default)]
struct Fold {
    view: PlayerView,
    told: bool,
    viewers: HashMap<u64, Heard>,
    looked: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Timestamp,
    latency: Option<Duration>,
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
    /// The report does not fit.
    #[error("reading the report: {0}")]
    Malformed(String),
    /// A bound is reached.
    #[error("too many {0}; report less often")]
    Full(&'static str),
}

impl Beacons {
    /// A fold of reports signed with `key`; without one nobody may report.
    #[must_use]
    pub fn new(key: Option<Key>) -> Self {
        Self {
            key,
            source: SourceName::from("beacon"),
            hasher: RandomState::new(),
            folds: Mutex::default(),
            epoch: Mutex::default(),
        }
    }

    /// Takes one report.
    ///
    /// # Errors
    /// [`ReportError`]; nothing of a refused report is kept.
    pub fn report(&self, body: &[u8], token: Option<&str>, at: Timestamp) -> Result<(), ReportError> {
        let key = self.key.as_ref().ok_or(ReportError::Closed)?;
        let report: Report = serde_json::from_slice(body).map_err(|error| ReportError::Malformed(error.to_string()))?;
        let session = Name::new(&report.session_id).map_err(|error| malformed("sessionId", &error))?;
        key.check(token.unwrap_or_default(), session.as_str(), at)?;
        let view = view(&report)?;
        let latency = report.delivery_latency.map(|value| seconds("deliveryLatency", value)).transpose()?;
        // A keyed hash of this process: the viewer's mark itself is not kept.
        let viewer = self.hasher.hash_one(&report.viewer);
        let mut folds = self.folds.lock().unwrap_or_else(PoisonError::into_inner);
        if folds.len() >= MAX_SESSIONS && !folds.contains_key(&session) {
            return Err(ReportError::Full("classes"));
        }
        let fold = folds.entry(session).or_default();
        if fold.viewers.len() >= MAX_VIEWERS && !fold.viewers.contains_key(&viewer) {
            return Err(ReportError::Full("viewers of this class"));
        }
        fold.viewers.insert(viewer, Heard { at, latency });
        fold.add(view);
        Ok(())
    }

    /// What was told since the last drain, one observation a class that told something.
    pub fn drain(&self, now: Timestamp) -> Vec<Observation> {
        let mut folds = self.folds.lock().unwrap_or_else(PoisonError::into_inner);
        if self.epoch.lock().unwrap_or_else(PoisonError::into_inner).is_new() {
            folds.clear();
        }
        let mut out = Vec::new();
        folds.retain(|session, fold| {
            fold.viewers.retain(|_, heard| now.since(heard.at) <= VIEWER_KEPT);
            if std::mem::take(&mut fold.told) {
                let (source, stream) = (Arc::clone(&self.source), StreamKey::of_session(session.clone()));
                let fact = Fact::Players(Box::new(fold.take(now)));
                out.push(Observation { source, stream, at: now, fact });
            }
            !fold.viewers.is_empty()
        });
        out
    }
}

impl Fold {
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
        self.told = true;
    }

    /// The sums, and once a second the latest latency of every viewer.
    fn take(&mut self, now: Timestamp) -> PlayerView {
        let protocol = self.view.protocol;
        let mut view = std::mem::replace(&mut self.view, PlayerView { protocol, ..PlayerView::default() });
        view.viewers = u32::try_from(self.viewers.len()).unwrap_or(u32::MAX);
        let second = now.nanos() / 1_000_000_000;
        if self.looked != Some(second) {
            self.looked = Some(second);
            let mut latencies = Latencies::default();
            self.viewers.values().filter_map(|heard| heard.latency).for_each(|latency| latencies.record(latency));
            view.latencies = (!latencies.is_empty()).then_some(latencies);
        }
        view
    }
}

/// `POST /v1/beacon`
pub(crate) async fn take(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Err(error) = shared.beacons.report(&body, bearer, clock::now()) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let (status, code) = match &error {
        ReportError::Closed => (StatusCode::NOT_FOUND, "closed"),
        ReportError::Token(_) => (StatusCode::UNAUTHORIZED, "bad_token"),
        ReportError::Malformed(_) => (StatusCode::BAD_REQUEST, "bad_report"),
        ReportError::Full(_) => (StatusCode::TOO_MANY_REQUESTS, "full"),
    };
    shared.meters.shed(&format!("beacon_{code}"), 1);
    ApiError::new(status, code, error.to_string()).into_response()
}

fn view(report: &Report) -> Result<PlayerView, ReportError> {
    let exposure = seconds("exposure", report.exposure)?;
    if exposure > MAX_SPAN {
        return Err(malformed("exposure", &format!("{} s is more than {} s", report.exposure, MAX_SPAN.as_secs())));
    }
    let stalled = report.total_freezes_duration.map(|value| seconds("totalFreezesDuration", value)).transpose()?;
    // By RFC 3550 duplicates may make the loss negative: then nothing was lost.
    let lost = report.packets_lost.map(|lost| u64::try_from(lost).unwrap_or(0));
    let expected = report.packets_received.zip(lost).map(|(received, lost)| received.saturating_add(lost));
    let first_frame = report.first_frame.map(|value| seconds("firstFrame", value)).transpose()?;
    Ok(PlayerView {
        protocol: report.protocol,
        viewers: 1,
        exposure,
        stalled: stalled.unwrap_or_default().min(exposure),
        stall_starts: report.freeze_count.unwrap_or(0),
        frames: report.frames_decoded,
        bytes: report.bytes_received,
        packets_lost: expected.and(lost),
        packets_expected: expected,
        first_frames: first_frame.into_iter().collect(),
        ..PlayerView::default()
    })
}

fn seconds(field: &'static str, value: f64) -> Result<Duration, ReportError> {
    Duration::try_from_secs_f64(value).map_err(|error| malformed(field, &error))
}

fn malformed(field: &'static str, error: &dyn std::fmt::Display) -> ReportError {
    ReportError::Malformed(format!("{field}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_000_000);

    fn beacons() -> (Beacons, String) {
        let key = Key::new(b"a key of at least thirty-two bytes").expect("long enough");
        let token = key.sign("s1", AT + Duration::from_mins(1));
        (Beacons::new(Some(key)), token)
    }

    fn report(viewer: &str, more: &str) -> Vec<u8> {
        format!(r#"{{"sessionId":"s1","viewer":"{viewer}","exposure":1.0{more}}}"#).into_bytes()
    }

    #[test]
    fn reports_fold_per_class() {
        let (beacons, token) = beacons();
        for viewer in ["a", "b", "a"] {
            let more = r#","totalFreezesDuration":0.25,"packetsReceived":99,"packetsLost":1,"deliveryLatency":0.3"#;
            beacons.report(&report(viewer, more), Some(&token), AT).expect("good");
        }
        let observations = beacons.drain(AT);
        let [Observation { fact: Fact::Players(view), .. }] = observations.as_slice() else {
            panic!("one class told: {observations:?}");
        };
        assert_eq!(
            (view.viewers, view.exposure, view.stalled),
            (2, Duration::from_secs(3), Duration::from_millis(750))
        );
        assert_eq!((view.packets_expected, view.packets_lost), (Some(300), Some(3)));
        assert_eq!(view.latencies.as_ref().map(Latencies::len), Some(2));
        assert!(beacons.drain(AT).is_empty(), "nothing is told twice");
    }

    #[test]
    fn a_stranger_or_nonsense_changes_nothing() {
        let (beacons, token) = beacons();
        let bad = [
            (report("a", ""), None),
            (report("a", ""), Some("1.00")),
            (report("a", r#","deliveryLatency":-1"#), Some(token.as_str())),
            (br#"{"sessionId":"other","viewer":"a","exposure":1}"#.to_vec(), Some(token.as_str())),
            (br#"{"sessionId":"s1","viewer":"a","exposure":1e300}"#.to_vec(), Some(token.as_str())),
            (b"[".to_vec(), Some(token.as_str())),
        ];
        for (body, token) in bad {
            assert!(beacons.report(&body, token, AT).is_err(), "{}", String::from_utf8_lossy(&body));
        }
        assert!(beacons.report(&report("a", ""), Some(&token), AT + Duration::from_hours(1)).is_err(), "expired");
        assert!(matches!(Beacons::new(None).report(&report("a", ""), Some(&token), AT), Err(ReportError::Closed)));
        assert!(beacons.drain(AT).is_empty());
    }

    #[test]
    fn silent_viewers_are_forgotten() {
        let (beacons, token) = beacons();
        beacons.report(&report("a", ""), Some(&token), AT).expect("good");
        beacons.drain(AT);
        beacons.drain(AT + VIEWER_KEPT + VIEWER_KEPT);
        assert!(beacons.folds.lock().expect("not poisoned").is_empty());
    }
}
