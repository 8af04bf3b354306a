//! CMCD event reports of players on `/v1/cmcd`: CMCD v2 (CTA-5004-B) in the body, or in query or headers as drafts of
//! it specify. Decides who may report for which class, passes reports to the viewers of an access log through a bounded
//! queue, and answers as the standard requires: 204, 429 to slow down, 410 to stop for good.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use liveqos_core::cmcd::{Cmcd, records};
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Name, Timestamp};

use super::ended_sessions::EndedSessions;
use super::token::{Key, TokenError};
use crate::http::{ApiError, argument, bearer, decoded, retry_later};
use crate::intake::access_log::{EventPost, EventQueue, OwnedAuthority, QueueFull, Requester};
use crate::platform::cidr::Networks;
use crate::platform::{SelfMetrics, clock};

/// Finds the stream of a live class. An access log may name a class by its stream, while a token names it by its id.
pub(crate) trait StreamLookup: Send + Sync {
    /// The stream of the live class with this id.
    fn stream_of(&self, session: &Name) -> Option<Name>;
}

/// The endpoint: who may report, and where reports go.
pub(crate) struct CmcdIntake {
    key: Option<Key>,
    trusted: Networks,
    queue: EventQueue,
    ended: Arc<EndedSessions>,
    streams: Arc<dyn StreamLookup>,
}

/// A request without its body.
struct RequestHead<'a> {
    /// Other end of the connection.
    peer: Option<IpAddr>,
    /// The viewer's address, where it is known.
    viewer: Option<IpAddr>,
    query: &'a str,
    headers: &'a HeaderMap,
}

/// Why a request is refused: the reason that is counted, and the response.
struct Refusal(ShedReason, ApiError);

impl CmcdIntake {
    /// Accepts reports with a token of `key`, and those of `trusted` peers; with neither the endpoint is closed.
    #[must_use]
    pub(crate) fn new(
        key: Option<Key>,
        trusted: Networks,
        queue: EventQueue,
        ended: Arc<EndedSessions>,
        streams: Arc<dyn StreamLookup>,
    ) -> Self {
        Self { key, trusted, queue, ended, streams }
    }

    /// Whether any client may report.
    #[must_use]
    pub(crate) const fn is_open(&self) -> bool {
        self.key.is_some() || !self.trusted.is_empty()
    }

    /// Whether the request has a token, and the class that it may report for; `None` where a trusted peer names none.
    fn authorize(&self, head: &RequestHead<'_>, now: Timestamp) -> Result<(bool, Option<Name>), Refusal> {
        let session = argument(head.query, "session_id").filter(|id| !id.is_empty());
        let session = session.map(|id| Name::new(&id)).transpose().map_err(|error| bad_session(error.to_string()))?;
        let trusted = head.peer.is_some_and(|peer| self.trusted.contain(peer));
        let Some(token) = bearer(head.headers).map(str::to_owned).or_else(|| argument(head.query, "token")) else {
            return match (trusted, &self.key) {
                (true, _) => Ok((false, session)),
                (false, Some(_)) => Err(refused(&TokenError::Form)),
                (false, None) => Err(closed()),
            };
        };
        let key = self.key.as_ref().ok_or_else(closed)?;
        let id = session
            .as_ref()
            .ok_or_else(|| bad_session("a token is for one class: name it as ?session_id= beside the token"))?;
        key.check(&token, id.as_str(), now).map_err(|error| refused(&error))?;
        Ok((true, session))
    }
}

/// Answers `POST /v1/cmcd` and `GET /v1/cmcd?CMCD=`, from `peer` on behalf of the viewer at this address.
pub(super) fn handle(
    intake: &CmcdIntake,
    meters: &SelfMetrics,
    (peer, viewer): (IpAddr, Option<IpAddr>),
    request: &Request<Bytes>,
) -> Response {
    let (query, headers) = (request.uri().query().unwrap_or_default(), request.headers());
    let head = RequestHead { peer: Some(peer), viewer, query, headers };
    match intake.read(&head, request.body().clone()).map(|post| intake.queue.put(post)) {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(QueueFull)) => {
            meters.shed(ShedReason::CmcdFull, 1);
            retry_later("full", "too many reports are waiting; report less often, or more at once", FULL_WAIT)
        }
        Err(Refusal(reason, error)) => {
            meters.shed(reason, 1);
            error.into_response()
        }
    }
}

impl CmcdIntake {
    /// The reports of a request, with the classes that they may be counted for.
    ///
    /// # Errors
    /// Why the request is refused.
    fn read(&self, head: &RequestHead<'_>, body: Bytes) -> Result<EventPost, Refusal> {
        let now = clock::now();
        let (has_token, session) = self.authorize(head, now)?;
        if session.as_ref().is_some_and(|id| self.ended.contains(id, now)) {
            let error = ApiError::new(StatusCode::GONE, "ended", "the class has ended; stop reporting");
            return Err(Refusal(ShedReason::CmcdEnded, error));
        }
        let body = payload(head, body)?;
        let stream = session.as_ref().and_then(|id| self.streams.stream_of(id));
        let mut names = stream.into_iter().chain(session);
        let authority =
            if has_token { OwnedAuthority::Only(names.collect()) } else { OwnedAuthority::Any(names.next()) };
        Ok(EventPost { at: now, authority, requester: Requester::of(head.viewer, head.headers), body })
    }
}

/// The records, from body, headers or query; headers have precedence over the query, as the standard requires.
fn payload(head: &RequestHead<'_>, body: Bytes) -> Result<Bytes, Refusal> {
    let payload = if body.is_empty() {
        let values = HEADERS.iter().filter_map(|name| head.headers.get(*name)).map(HeaderValue::as_bytes);
        let values = values.collect::<Vec<_>>().join(&b","[..]);
        Bytes::from(if values.is_empty() { decoded(head.query, "CMCD").unwrap_or_default() } else { values })
    } else {
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !MEDIA_TYPES.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
            let message = "the body must be application/cmcd (or text/cmcd, from older players)";
            let error = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", message);
            return Err(Refusal(ShedReason::CmcdMediaType, error));
        }
        body
    };
    // Without a session id (sid), no viewer can be found for a report.
    if records(&payload).any(|record| Cmcd::parse(record).is_ok_and(|set| set.sid.is_some())) {
        return Ok(payload);
    }
    let message = "no record with a sid in it: records are CMCD key=value pairs, v at most 2, one a line";
    Err(Refusal(ShedReason::CmcdUnreadable, ApiError::new(StatusCode::BAD_REQUEST, "unreadable", message)))
}

fn bad_session(message: impl Into<String>) -> Refusal {
    let error = ApiError::new(StatusCode::BAD_REQUEST, "bad_session", message).on("session_id");
    Refusal(ShedReason::CmcdBadSession, error)
}

fn closed() -> Refusal {
    let message = "event reports are closed on this node: set beacon.key_file, or cmcd.without_token_from";
    Refusal(ShedReason::CmcdClosed, ApiError::new(StatusCode::NOT_FOUND, "closed", message))
}

/// An expired token never becomes valid again, so the response is 410, which stops the player.
fn refused(error: &TokenError) -> Refusal {
    let (reason, status, code) = match error {
        TokenError::Expired => (ShedReason::CmcdExpired, StatusCode::GONE, "expired"),
        _ => (ShedReason::CmcdBadToken, StatusCode::UNAUTHORIZED, "bad_token"),
    };
    Refusal(reason, ApiError::new(status, code, error.to_string()))
}

/// Of CTA-5004-B, and of drafts of it.
const MEDIA_TYPES: [&str; 2] = ["application/cmcd", "text/cmcd"];
const HEADERS: [&str; 4] = ["cmcd-session", "cmcd-request", "cmcd-object", "cmcd-status"];
/// `Retry-After` when the queue is full.
const FULL_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::access_log::event_queue::event_queue;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn key() -> Key {
        Key::new(&[7; 32]).expect("long enough")
    }

    struct NoStreams;

    impl StreamLookup for NoStreams {
        fn stream_of(&self, _: &Name) -> Option<Name> {
            None
        }
    }

    fn authorize(key: Option<Key>, peer: &str, query: &str, auth: Option<&str>) -> Result<(bool, Option<Name>), u16> {
        let trusted = Networks::read("x", &["127.0.0.1".to_owned()]).expect("good");
        let intake = CmcdIntake::new(key, trusted, event_queue().0, Arc::default(), Arc::new(NoStreams));
        let mut headers = HeaderMap::new();
        if let Some(token) = auth {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().expect("a value"));
        }
        let head = RequestHead { peer: peer.parse().ok(), viewer: None, query, headers: &headers };
        intake.authorize(&head, NOW).map_err(|refusal| refusal.1.into_response().status().as_u16())
    }

    #[test]
    fn who_may_report_for_which_class() {
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
            assert_eq!(authorize(key, peer, query, auth.map(String::as_str)), answer, "{peer} {query} {auth:?}");
        }
    }

    fn read(query: &str, headers: &[(&'static str, &'static str)], body: &'static str) -> Result<Bytes, u16> {
        let map = headers.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
        let head = RequestHead { peer: None, viewer: None, query, headers: &map.collect() };
        let body = Bytes::from_static(body.as_bytes());
        payload(&head, body).map_err(|refusal| refusal.1.into_response().status().as_u16())
    }

    #[test]
    fn records_are_read_from_body_headers_or_query() {
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
