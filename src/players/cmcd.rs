//! Event reports of players: `/v1/cmcd`, CMCD v2 (CTA-5004-B) by body, and by query or headers as drafts send them.
//! Decides who may report for which class, hands reports to the fold of that class's viewers by a bounded queue, and
//! answers as the standard asks: 204, 429 to slow down, 410 to stop for good.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use liveqos_core::base::percent::decode_form;
use liveqos_core::cmcd::{Cmcd, records};
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Name, Timestamp};

use super::listener::later;
use super::token::{Key, TokenError};
use crate::api::Shared;
use crate::http::ApiError;
use crate::intake::access_log::{EventPost, EventQueue, OwnedAuthority, QueueFull, Requester};
use crate::platform::cidr::Networks;
use crate::platform::clock;

/// What the way in needs to know.
pub(crate) struct CmcdIntake {
    key: Option<Key>,
    trusted: Networks,
    posts: EventQueue,
}

/// What a request says of itself beside its records.
struct Asked<'a> {
    peer: Option<IpAddr>,
    source: Option<IpAddr>,
    query: &'a str,
    headers: &'a HeaderMap,
}

/// Why a post is not taken: as it is counted, and as it is answered.
struct Refusal(ShedReason, ApiError);

impl CmcdIntake {
    /// A way in for reports signed with `key`, and for those of `trusted` peers; with neither it is closed.
    #[must_use]
    pub(crate) const fn new(key: Option<Key>, trusted: Networks, posts: EventQueue) -> Self {
        Self { key, trusted, posts }
    }

    /// Whether anybody may report.
    #[must_use]
    pub(crate) const fn is_open(&self) -> bool {
        self.key.is_some() || !self.trusted.is_empty()
    }

    /// The class that may be spoken for: of a token, of a trusted peer's word, or none told.
    fn claim(&self, asked: &Asked<'_>, now: Timestamp) -> Result<(bool, Option<Name>), Refusal> {
        let session = argument(asked.query, "session_id").filter(|id| !id.is_empty());
        let session = session.map(|id| Name::new(&id)).transpose().map_err(|error| {
            Refusal(
                ShedReason::CmcdBadSession,
                ApiError::new(StatusCode::BAD_REQUEST, "bad_session", error.to_string()).on("session_id"),
            )
        })?;
        let trusted = asked.peer.is_some_and(|peer| self.trusted.contain(peer));
        let Some(token) = bearer(asked.headers).map(str::to_owned).or_else(|| argument(asked.query, "token")) else {
            return match (trusted, &self.key) {
                (true, _) => Ok((false, session)),
                (false, Some(_)) => Err(refused(&TokenError::Form)),
                (false, None) => Err(closed()),
            };
        };
        let key = self.key.as_ref().ok_or_else(closed)?;
        let id = session.as_ref().ok_or_else(|| {
            let message = "a token speaks for one class: name it as ?session_id= beside the token";
            Refusal(
                ShedReason::CmcdBadSession,
                ApiError::new(StatusCode::BAD_REQUEST, "bad_session", message).on("session_id"),
            )
        })?;
        key.check(&token, id.as_str(), now).map_err(|error| refused(&error))?;
        Ok((true, session))
    }
}

/// `POST /v1/cmcd`, and `GET /v1/cmcd?CMCD=`.
pub(crate) fn take(shared: &Shared, peer: IpAddr, source: IpAddr, request: &Request<Bytes>) -> Response {
    let (query, headers) = (request.uri().query().unwrap_or_default(), request.headers());
    let asked = Asked { peer: Some(peer), source: shared.gate.viewer(source), query, headers };
    match post(shared, &asked, request.body().clone()).map(|post| shared.cmcd.posts.put(post)) {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(QueueFull)) => {
            shared.meters.shed(ShedReason::CmcdFull, 1);
            later("full", "more reports wait than can be read; report less often, or more at once", FULL_WAIT)
        }
        Err(Refusal(reason, error)) => {
            shared.meters.shed(reason, 1);
            error.into_response()
        }
    }
}

/// What is handed to the fold, where it may be.
fn post(shared: &Shared, asked: &Asked<'_>, body: Bytes) -> Result<EventPost, Refusal> {
    let now = clock::now();
    let (is_signed, session) = shared.cmcd.claim(asked, now)?;
    if session.as_ref().is_some_and(|id| shared.ended.has(id, now)) {
        return Err(Refusal(
            ShedReason::CmcdEnded,
            ApiError::new(StatusCode::GONE, "ended", "the class is over; stop reporting"),
        ));
    }
    let body = payload(asked, body)?;
    // A log may know the class by its stream, a token by its id.
    let stream = session.as_ref().and_then(|id| {
        let snapshot = shared.snapshot.load();
        snapshot.sessions.get(id).and_then(|state| Name::new(state.session.stream.as_str()).ok())
    });
    let mut names = stream.into_iter().chain(session);
    let claim = if is_signed { OwnedAuthority::Only(names.collect()) } else { OwnedAuthority::Any(names.next()) };
    Ok(EventPost { at: now, claim, sender: Requester::of(asked.source, asked.headers), body })
}

/// The records, from body, headers or query; headers win over the query, as the standard says.
fn payload(asked: &Asked<'_>, body: Bytes) -> Result<Bytes, Refusal> {
    let payload = if body.is_empty() {
        let told = HEADERS.iter().filter_map(|name| asked.headers.get(*name)).map(HeaderValue::as_bytes);
        let told = told.collect::<Vec<_>>().join(&b","[..]);
        Bytes::from(if told.is_empty() { decoded(asked.query, "CMCD").unwrap_or_default() } else { told })
    } else {
        let kind = asked.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !MEDIA_TYPES.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
            let message = "the body must be application/cmcd (or text/cmcd, as older players say)";
            return Err(Refusal(
                ShedReason::CmcdMediaType,
                ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", message),
            ));
        }
        body
    };
    // A report without a viewer belongs to nobody.
    if records(&payload).any(|record| Cmcd::parse(record).is_ok_and(|set| set.sid.is_some())) {
        return Ok(payload);
    }
    let message = "no record with a sid in it: records are CMCD key=value pairs, v at most 2, one a line";
    Err(Refusal(ShedReason::CmcdUnreadable, ApiError::new(StatusCode::BAD_REQUEST, "unreadable", message)))
}

fn closed() -> Refusal {
    let message = "event reports are closed on this node: set beacon.key_file, or cmcd.without_token_from";
    Refusal(ShedReason::CmcdClosed, ApiError::new(StatusCode::NOT_FOUND, "closed", message))
}

/// A token that has run out never fits again, so its player is told to stop.
fn refused(error: &TokenError) -> Refusal {
    match error {
        TokenError::Expired => {
            Refusal(ShedReason::CmcdExpired, ApiError::new(StatusCode::GONE, "expired", error.to_string()))
        }
        _ => Refusal(ShedReason::CmcdBadToken, ApiError::new(StatusCode::UNAUTHORIZED, "bad_token", error.to_string())),
    }
}

/// The token of an `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// The text of an argument of a query, unescaped.
pub(crate) fn argument(query: &str, name: &str) -> Option<String> {
    String::from_utf8(decoded(query, name)?).ok()
}

fn decoded(query: &str, name: &str) -> Option<Vec<u8>> {
    let mut values = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = values.find(|(key, _)| *key == name)?;
    let mut out = Vec::new();
    decode_form(value.as_bytes(), &mut out);
    Some(out)
}

/// Of CTA-5004-B, and of its forerunner.
const MEDIA_TYPES: [&str; 2] = ["application/cmcd", "text/cmcd"];
const HEADERS: [&str; 4] = ["cmcd-session", "cmcd-request", "cmcd-object", "cmcd-status"];
/// How long players should wait when the queue is full.
const FULL_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::access_log::event_queue::event_queue;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn key() -> Key {
        Key::new(&[7; 32]).expect("long enough")
    }

    fn claim(key: Option<Key>, peer: &str, query: &str, auth: Option<&str>) -> Result<(bool, Option<Name>), u16> {
        let trusted = Networks::read("x", &["127.0.0.1".to_owned()]).expect("good");
        let intake = CmcdIntake::new(key, trusted, event_queue().0);
        let mut headers = HeaderMap::new();
        if let Some(token) = auth {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().expect("a value"));
        }
        let asked = Asked { peer: peer.parse().ok(), source: None, query, headers: &headers };
        intake.claim(&asked, NOW).map_err(|refusal| refusal.1.into_response().status().as_u16())
    }

    #[test]
    fn who_may_speak_for_what() {
        let s1 = || Some(Name::new("s1").expect("a name"));
        let good = key().sign("s1", NOW + Duration::from_secs(9));
        let old = key().sign("s1", Timestamp::from_secs(999));
        let by_query = format!("a=b&session_id=s%31&token={good}");
        for (key, peer, query, auth, answer) in [
            (Some(key()), "192.0.2.1", by_query.as_str(), None, Ok((true, s1()))),
            (Some(key()), "192.0.2.1", "session_id=s1", Some(&good), Ok((true, s1()))),
            (Some(key()), "192.0.2.1", "session_id=s2", Some(&good), Err(401)),
            (Some(key()), "192.0.2.1", "session_id=s1", Some(&old), Err(410)),
            (Some(key()), "127.0.0.1", "session_id=s2", Some(&good), Err(401)),
            (Some(key()), "192.0.2.1", "", Some(&good), Err(400)),
            (Some(key()), "192.0.2.1", "session_id=s1", None, Err(401)),
            (None, "192.0.2.1", "session_id=s1", None, Err(404)),
            (None, "192.0.2.1", "session_id=s1", Some(&good), Err(404)),
            (None, "127.0.0.1", "session_id=s1", None, Ok((false, s1()))),
            (None, "127.0.0.1", "", None, Ok((false, None))),
            (None, "127.0.0.1", "session_id=%0A", None, Err(400)),
            (None, "nobody", "", None, Err(404)),
        ] {
            assert_eq!(claim(key, peer, query, auth.map(String::as_str)), answer, "{peer} {query} {auth:?}");
        }
    }

    fn read(query: &str, headers: &[(&'static str, &'static str)], body: &'static str) -> Result<Bytes, u16> {
        let map = headers.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
        let asked = Asked { peer: None, source: None, query, headers: &map.collect() };
        let body = Bytes::from_static(body.as_bytes());
        payload(&asked, body).map_err(|refusal| refusal.1.into_response().status().as_u16())
    }

    #[test]
    fn records_come_by_body_headers_or_query() {
        let cmcd = [("content-type", "application/cmcd")];
        let body = "e=t,sid=\"a\",sn=0,ts=1,v=2\n";
        assert_eq!(read("", &cmcd, body), Ok(Bytes::from_static(body.as_bytes())));
        assert!(read("", &[("content-type", "Text/CMCD; charset=utf-8")], body).is_ok());
        assert_eq!(read("", &[("content-type", "text/plain")], body), Err(415));
        assert_eq!(read("", &[], body), Err(415));
        assert_eq!(read("CMCD=sid%3D%22a%22%2Cbs&x=1", &[], "").as_deref(), Ok(&b"sid=\"a\",bs"[..]));
        let headers = [("cmcd-session", "sid=\"h\""), ("cmcd-status", "bs")];
        assert_eq!(read("CMCD=sid%3D%22a%22", &headers, "").as_deref(), Ok(&b"sid=\"h\",bs"[..]));
        for nothing in ["\n\n", "garbage", "sid=\"a\",v=3", "e=t,sn=0"] {
            assert_eq!(read("", &cmcd, nothing), Err(400), "{nothing}");
        }
        assert_eq!(read("", &cmcd, ""), Err(400));
        assert!(read("", &cmcd, "garbage\nsid=\"a\"").is_ok(), "one good record is enough");
    }
}
