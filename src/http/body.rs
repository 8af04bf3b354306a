//! Request bodies, read whole before a handler runs. Decides how long a body may be and how long it may take; refuses
//! compressed bodies, because no known sender compresses and a decompressed body has no bound.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{Request as HttpRequest, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use liveqos_core::metrics::ShedReason;

use super::error::ApiError;
use crate::platform::SelfMetrics;

/// Largest body of any request, in bytes.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// Longest time for a body: a client that sends slowly must not hold its connection for longer.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Middleware: passes a request on once its body has arrived, or answers with what is wrong with it.
pub(crate) async fn buffer(State(meters): State<SelfMetrics>, request: Request, next: Next) -> Response {
    match read(request).await {
        Ok(request) => next.run(request.map(Body::from)).await,
        Err(error) => error.respond(&meters),
    }
}

/// The request with its body read.
///
/// # Errors
/// What is wrong with the body.
pub(crate) async fn read<B>(request: HttpRequest<B>) -> Result<HttpRequest<Bytes>, BodyError>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(COMPRESSED);
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, collect(body)).await.unwrap_or(Err(SLOW))?;
    Ok(HttpRequest::from_parts(head, body))
}

/// The body, up to [`MAX_BODY`]. A longer one is read on up to [`MAX_DISCARDED`] and discarded, because many clients
/// read the response only after they have sent everything.
async fn collect<B>(mut body: B) -> Result<Bytes, BodyError>
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
        } else if length > MAX_DISCARDED {
            break;
        }
    }
    if length > MAX_BODY { Err(TOO_LARGE) } else { Ok(whole.freeze()) }
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyError(StatusCode, ShedReason, &'static str);

impl BodyError {
    /// The response, whose code is the counted reason. It closes the connection, so that the rest of the body is not
    /// waited for.
    pub(crate) fn respond(self, meters: &SelfMetrics) -> Response {
        let Self(status, reason, message) = self;
        meters.shed(reason, 1);
        ([(header::CONNECTION, "close")], ApiError::new(status, reason.as_str(), message)).into_response()
    }
}

/// Most bytes of a body that are read, kept or discarded.
const MAX_DISCARDED: usize = 1 << 20;

const COMPRESSED: BodyError = BodyError(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    ShedReason::BodyPacked,
    "compressed bodies are not accepted; leave Content-Encoding out",
);
const TOO_LARGE: BodyError =
    BodyError(StatusCode::PAYLOAD_TOO_LARGE, ShedReason::BodyTooLarge, "a body may have 65536 bytes at most");
const BROKEN: BodyError = BodyError(
    StatusCode::BAD_REQUEST,
    ShedReason::BodyBroken,
    "the body ended early or does not have its announced length",
);
const SLOW: BodyError =
    BodyError(StatusCode::REQUEST_TIMEOUT, ShedReason::BodySlow, "the body did not arrive within 5 s");
