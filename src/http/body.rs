//! Bodies of requests, read whole before anybody looks at them. Decides how long one may be and how long it may take;
//! refuses packed ones, since no sender that is known packs, and what is unpacked has no bound.

use liveqos_core::metrics::ShedReason;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{Request as HttpRequest, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::BytesMut;
use http_body_util::BodyExt as _;

use super::error::ApiError;
use crate::api::{MAX_BODY, Shared};
use crate::platform::SelfMetrics;

/// Longest time for a body: one that trickles holds its place no longer.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes on a request whose body is here, or answers why not.
pub(crate) async fn whole(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match taken(request).await {
        Ok(request) => next.run(request.map(Body::from)).await,
        Err(wrong) => wrong.answer(&shared.meters),
    }
}

/// The request with its body.
///
/// # Errors
/// What is wrong with the body.
pub(crate) async fn taken<B>(request: HttpRequest<B>) -> Result<HttpRequest<Bytes>, Wrong>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(PACKED);
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, collect(body)).await.unwrap_or(Err(SLOW))?;
    Ok(HttpRequest::from_parts(head, body))
}

/// The body, as far as it may be kept. A longer one is read on for a while and thrown away: its sender only listens
/// when it has spoken.
async fn collect<B>(mut body: B) -> Result<Bytes, Wrong>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let (mut whole, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BROKEN)?.into_data() else {
            continue;
        };
        length += data.len();
        if length <= MAX_BODY {
            whole.extend_from_slice(&data);
        } else if length > MAX_THROWN_AWAY {
            break;
        }
    }
    if length > MAX_BODY { Err(TOO_LARGE) } else { Ok(whole.freeze()) }
}

/// Why a body is not taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrong(StatusCode, ShedReason, &'static str);

impl Wrong {
    /// The answer that says so; counted. What is left of the body is not waited for.
    pub(crate) fn answer(self, meters: &SelfMetrics) -> Response {
        let Self(status, reason, message) = self;
        meters.shed(reason, 1);
        ([(header::CONNECTION, "close")], ApiError::new(status, reason.as_str(), message)).into_response()
    }
}

/// Most bytes of a body that are read, kept or not.
const MAX_THROWN_AWAY: usize = 1 << 20;

const PACKED: Wrong = Wrong(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    ShedReason::BodyPacked,
    "packed bodies are not taken; leave Content-Encoding out",
);
const TOO_LARGE: Wrong =
    Wrong(StatusCode::PAYLOAD_TOO_LARGE, ShedReason::BodyTooLarge, "a body may have 65536 bytes at most");
const BROKEN: Wrong =
    Wrong(StatusCode::BAD_REQUEST, ShedReason::BodyBroken, "the body broke off or is not of the length it said");
const SLOW: Wrong = Wrong(StatusCode::REQUEST_TIMEOUT, ShedReason::BodySlow, "the body did not arrive within 5 s");
