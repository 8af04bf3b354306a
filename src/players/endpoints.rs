//! The endpoints on which players post: `/v1/beacon` and `/v1/cmcd`. Decides in which order a request is checked: rate,
//! method, body, report; refuses with 429 before anything is read.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::http::{Method, Request, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::Incoming;
use liveqos_core::metrics::ShedReason;
use tower::{Layer as _, Service};
use tower_http::cors::Cors;

use super::script;
use super::state::PlayerState;
use crate::http::{HttpService, body, method_not_allowed, retry_later};

/// All that a listener serves: the players' endpoints, and routes for everything else.
///
/// Players post hundreds of times a second. Their endpoints come before the router, because matching a route and
/// running its layers costs more than a report.
#[derive(Clone)]
pub(crate) struct PlayerService(Arc<Endpoints>);

struct Endpoints {
    players: Cors<PlayerEndpoints>,
    router: Router,
}

impl PlayerService {
    /// The players' endpoints and their script, and `router` for all other paths.
    pub(crate) fn new(state: &PlayerState, router: Router) -> Self {
        let cors = state.policy.cors();
        let players = cors.layer(PlayerEndpoints(Arc::new(state.clone())));
        let script = Router::new().route("/liveqos-player.js", get(script::script)).layer(cors);
        Self(Arc::new(Endpoints { players, router: router.merge(script) }))
    }
}

impl HttpService for PlayerService {
    async fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response {
        let Endpoints { players, router } = &*self.0;
        let answered = if is_player_path(request.uri().path()) {
            request.extensions_mut().insert(Peer(peer));
            players.clone().call(request).await
        } else {
            router.clone().call(request).await
        };
        match answered {
            Ok(response) => response,
        }
    }
}

/// The handlers, behind the CORS headers of [`PlayerService`].
#[derive(Clone)]
pub(crate) struct PlayerEndpoints(Arc<PlayerState>);

/// The other end of the connection that brought a request.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

impl Service<Request<Incoming>> for PlayerEndpoints {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move { Ok(handle(&state, request).await) })
    }
}

/// Whether this is the path of one of the [`PlayerEndpoints`].
#[must_use]
pub(crate) fn is_player_path(path: &str) -> bool {
    path == BEACON || path == CMCD
}

/// Whether a connection is a player's, by the first bytes of its first request.
#[must_use]
pub(crate) fn is_player_request(bytes: &[u8]) -> bool {
    PLAYER_REQUESTS.iter().any(|start| bytes.starts_with(start))
}

async fn handle(state: &PlayerState, request: Request<Incoming>) -> Response {
    let peer = request.extensions().get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(peer)| peer.ip());
    let source = state.policy.source(peer, request.headers());
    if let Err(wait) = state.policy.admit(source) {
        state.meters.shed(ShedReason::SourceRate, 1);
        return retry_later("too_often", "this address posts too often; post less often, or more at once", wait);
    }
    let is_beacon = request.uri().path() == BEACON;
    let allowed = if is_beacon { &[Method::POST][..] } else { &[Method::POST, Method::GET, Method::HEAD] };
    if !allowed.contains(request.method()) {
        let allowed = if is_beacon { "POST" } else { "GET,HEAD,POST" };
        return ([(header::ALLOW, allowed)], method_not_allowed().await).into_response();
    }
    let viewer = state.policy.viewer(source);
    match body::read(request).await {
        Ok(request) if is_beacon => super::beacon::handle(&state.beacons, &state.meters, viewer, &request),
        Ok(request) => super::cmcd::handle(&state.cmcd, &state.meters, (peer, viewer), &request),
        Err(error) => error.respond(&state.meters),
    }
}

const BEACON: &str = "/v1/beacon";
const CMCD: &str = "/v1/cmcd";
/// How players' requests begin; each has at most [`SNIFF_BYTES`](crate::http::server::SNIFF_BYTES) bytes.
const PLAYER_REQUESTS: [&[u8]; 5] =
    [b"POST /v1/beacon", b"POST /v1/cmcd", b"GET /v1/cmcd", b"OPTIONS /v1/", b"GET /liveqos-pla"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::SNIFF_BYTES;

    #[test]
    fn a_players_connection_shows_by_its_first_bytes() {
        assert!(PLAYER_REQUESTS.iter().all(|start| start.len() <= SNIFF_BYTES));
        assert!(is_player_request(b"POST /v1/cmcd?to") && !is_player_request(b"GET /metrics HTT"));
        assert!(is_player_path("/v1/beacon") && !is_player_path("/v1/beacon/"));
    }
}
