//! `POST /v1/beacon`: playback sums of players, each since the player's last report. Decides who may report for a class
//! (the bearer of a signed, expiring token); every refusal names its reason.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Observation, Timestamp};
use liveqos_core::viewer::{
    Beacon, BeaconBody, BeaconFold, BeaconOutcome, BeaconRefused, MAX_BEACON_BYTES, MalformedBeacon,
};

use super::ended_sessions::EndedSessions;
use super::token::{Key, TokenError};
use crate::http::{ApiError, argument, bearer, retry_later};
use crate::intake::access_log::Requester;
use crate::platform::{SelfMetrics, clock};

/// The reports of all classes since the last tick.
#[derive(Debug)]
pub struct Beacons {
    key: Option<Key>,
    ended: Arc<EndedSessions>,
    hasher: RandomState,
    fold: Mutex<BeaconFold>,
    epoch: Mutex<clock::Epoch>,
}

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No key is configured.
    #[error("beacons are closed on this node: beacon.key_file is not set")]
    Closed,
    /// The token is not valid.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The platform ended the class.
    #[error("the class has ended; stop reporting")]
    Ended,
    /// The body is too long.
    #[error("a report has at most {MAX_BEACON_BYTES} bytes")]
    TooLarge,
    /// The body cannot be read.
    #[error(transparent)]
    Malformed(#[from] MalformedBeacon),
    /// The fold does not take it.
    #[error(transparent)]
    Refused(#[from] BeaconRefused),
}

impl Beacons {
    /// Accepts reports with a token of `key`, except for classes that ended; without a key nobody may report. Viewers'
    /// networks are hashed under `group_key`.
    #[must_use]
    pub fn new(key: Option<Key>, group_key: [u64; 2], ended: Arc<EndedSessions>) -> Self {
        Self {
            key,
            ended,
            hasher: RandomState::new(),
            fold: Mutex::new(BeaconFold::new(group_key)),
            epoch: Mutex::default(),
        }
    }

    /// Counts one report.
    ///
    /// # Errors
    /// [`ReportError`]; nothing of a refused report is kept.
    pub fn report(
        &self,
        body: &[u8],
        token: Option<&str>,
        requester: &Requester,
        at: Timestamp,
    ) -> Result<BeaconOutcome, ReportError> {
        let key = self.key.as_ref().ok_or(ReportError::Closed)?;
        if body.len() > MAX_BEACON_BYTES {
            return Err(ReportError::TooLarge);
        }
        let body = BeaconBody::parse(body)?;
        let session = &body.session()?;
        key.check(token.unwrap_or_default(), session.as_str(), at)?;
        if self.ended.contains(session, at) {
            return Err(ReportError::Ended);
        }
        let (report, origin) = (body.report()?, requester.origin());
        // A keyed hash of this process: the viewer's id itself is not kept.
        let viewer = self.hasher.hash_one(body.viewer());
        let mut fold = self.fold.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(fold.add(Beacon { session, viewer, report, origin, at })?)
    }

    /// One observation of each class with reports since the last call.
    pub fn drain(&self, now: Timestamp) -> Vec<Observation> {
        let mut fold = self.fold.lock().unwrap_or_else(PoisonError::into_inner);
        if self.epoch.lock().unwrap_or_else(PoisonError::into_inner).is_new() {
            fold.clear();
        }
        fold.drain(now)
    }
}

/// Answers `POST /v1/beacon` of the viewer at this address.
pub(super) fn handle(
    beacons: &Beacons,
    meters: &SelfMetrics,
    viewer: Option<IpAddr>,
    request: &Request<Bytes>,
) -> Response {
    // navigator.sendBeacon() cannot set headers, so the token may be an argument instead.
    let in_query = || argument(request.uri().query().unwrap_or_default(), "token").map(Cow::Owned);
    let token = bearer(request.headers()).map(Cow::Borrowed).or_else(in_query);
    let requester = Requester::of(viewer, request.headers());
    let error = match beacons.report(request.body(), token.as_deref(), &requester, clock::now()) {
        Ok(outcome) => {
            match outcome {
                BeaconOutcome::Folded { bad_values, groups_left_out } => {
                    meters.shed(ShedReason::BeaconBadValue, u64::from(bad_values));
                    meters.shed(ShedReason::BeaconGroups, u64::from(groups_left_out));
                }
                BeaconOutcome::Repeated => meters.shed(ShedReason::BeaconRepeated, 1),
            }
            return StatusCode::NO_CONTENT.into_response();
        }
        Err(error) => error,
    };
    let (status, code, reason) = match &error {
        ReportError::Closed => (StatusCode::NOT_FOUND, "closed", ShedReason::BeaconClosed),
        ReportError::Token(TokenError::Expired) => (StatusCode::GONE, "expired", ShedReason::BeaconExpired),
        ReportError::Token(_) => (StatusCode::UNAUTHORIZED, "bad_token", ShedReason::BeaconBadToken),
        ReportError::Ended => (StatusCode::GONE, "ended", ShedReason::BeaconEnded),
        ReportError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", ShedReason::BeaconTooLarge),
        ReportError::Malformed(_) => (StatusCode::BAD_REQUEST, "bad_report", ShedReason::BeaconBadReport),
        ReportError::Refused(BeaconRefused::TooMuch) => {
            (StatusCode::BAD_REQUEST, "too_much", ShedReason::BeaconTooMuch)
        }
        ReportError::Refused(BeaconRefused::Full(_)) => (StatusCode::TOO_MANY_REQUESTS, "full", ShedReason::BeaconFull),
    };
    meters.shed(reason, 1);
    if status == StatusCode::TOO_MANY_REQUESTS {
        return retry_later(code, &error.to_string(), FULL_WAIT);
    }
    ApiError::new(status, code, error.to_string()).into_response()
}

/// `Retry-After` when a table has no room.
const FULL_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use liveqos_core::model::Name;

    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_000_000);

    fn key() -> Key {
        Key::new(b"a key of at least thirty-two bytes").expect("long enough")
    }

    fn beacons() -> (Beacons, String) {
        let token = key().sign("s1", AT + Duration::from_mins(1));
        (Beacons::new(Some(key()), [1, 2], Arc::default()), token)
    }

    fn report(more: &str) -> Vec<u8> {
        format!(r#"{{"sessionId":"s1","viewer":"a","sequence":0,"exposure":1.0{more}}}"#).into_bytes()
    }

    #[test]
    fn a_signed_report_is_counted_once() {
        let (beacons, token) = beacons();
        let send = || beacons.report(&report(""), Some(&token), &Requester::default(), AT).expect("accepted");
        assert_eq!(send(), BeaconOutcome::Folded { bad_values: 0, groups_left_out: 0 });
        assert_eq!(send(), BeaconOutcome::Repeated);
        let observations = beacons.drain(AT);
        assert_eq!((observations.len(), observations[0].source.as_ref()), (1, "beacon"));
    }

    #[test]
    fn an_unsigned_or_malformed_report_changes_nothing() {
        let (beacons, token) = beacons();
        let long = format!(r#","x":"{}""#, "x".repeat(MAX_BEACON_BYTES));
        let bad = [
            (report(""), None),
            (report(""), Some("1.00")),
            (report(&long), Some(token.as_str())),
            (br#"{"sessionId":"other","viewer":"a","sequence":0,"exposure":1}"#.to_vec(), Some(token.as_str())),
            (br#"{"sessionId":"s1","viewer":"a","sequence":0,"exposure":1e300}"#.to_vec(), Some(token.as_str())),
            (b"[".to_vec(), Some(token.as_str())),
        ];
        let requester = Requester::default();
        for (body, token) in bad {
            assert!(beacons.report(&body, token, &requester, AT).is_err(), "{}", String::from_utf8_lossy(&body));
        }
        let later = AT + Duration::from_hours(1);
        assert!(beacons.report(&report(""), Some(&token), &requester, later).is_err(), "expired");
        let closed = Beacons::new(None, [1, 2], Arc::default());
        let closed = closed.report(&report(""), Some(&token), &requester, AT);
        assert!(matches!(closed, Err(ReportError::Closed)));
        assert!(beacons.drain(AT).is_empty());
    }

    #[test]
    fn reports_of_an_ended_class_are_refused() {
        let (beacons, token) = beacons();
        beacons.ended.record(&Name::new("s1").expect("a name"), AT);
        let refused = beacons.report(&report(""), Some(&token), &Requester::default(), AT);
        assert!(matches!(refused, Err(ReportError::Ended)));
    }
}
