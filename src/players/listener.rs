//! The ways in that face players. Decides who asks (the peer, or what a trusted proxy says), how often it may, and
//! which web pages may read the answers; refuses the rest with 429 before anything is read.

use liveqos_core::metrics::ShedReason;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::Incoming;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::{Layer as _, Service};
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};

use super::rate_limit::Limiter;
use super::script;
use super::settings::{IngestError, IngestSettings};
use crate::api::Shared;
use crate::http::error::{nothing_here, wrong_method};
use crate::http::{ApiError, BatchingRuntime, ListenerConfig, PLAYERS_SHED, body, server};
use crate::platform::cidr::Networks;
use crate::platform::tls;

/// The other end of the connection that brought a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub SocketAddr);

/// Who may ask how often.
pub(crate) struct ClientPolicy {
    limiter: Limiter,
    proxies: Networks,
    origins: Vec<HeaderValue>,
    since: Instant,
}

impl ClientPolicy {
    /// A gate as configured.
    ///
    /// # Errors
    /// [`IngestError`].
    pub(crate) fn new(settings: &IngestSettings) -> Result<Self, IngestError> {
        let origin = |text: &String| HeaderValue::from_str(text).map_err(|_| IngestError::Origin(text.clone()));
        Ok(Self {
            limiter: Limiter::new(settings.rate_per_second, settings.burst),
            proxies: settings.proxies()?,
            origins: settings.origins.iter().map(origin).collect::<Result<_, _>>()?,
            since: Instant::now(),
        })
    }

    /// Whose request it is: the peer's, or where that is a trusted proxy the last one of `X-Forwarded-For` that is
    /// none.
    #[must_use]
    pub(crate) fn source(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut source = peer;
        let told = headers.get_all("x-forwarded-for").iter().rev().filter_map(|value| value.to_str().ok());
        for hop in told.flat_map(|list| list.rsplit(',')) {
            if !self.proxies.contain(source) {
                break;
            }
            let Ok(address) = hop.trim().parse() else {
                break;
            };
            source = address;
        }
        source
    }

    /// The same, where it is a viewer's address: not that of a proxy that told of nobody.
    #[must_use]
    pub(crate) fn viewer(&self, source: IpAddr) -> Option<IpAddr> {
        (!self.proxies.contain(source)).then_some(source)
    }

    fn cors(&self) -> CorsLayer {
        let any = self.origins.iter().any(|origin| origin == "*");
        CorsLayer::new()
            .allow_origin(if any { AllowOrigin::any() } else { AllowOrigin::list(self.origins.clone()) })
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(ASKED_HEADERS)
            .expose_headers([header::RETRY_AFTER])
            .max_age(PREFLIGHT_KEPT)
    }
}

/// All of an address that faces players alone, but for their [`PlayerEndpoints`].
pub(crate) fn router(shared: &Shared) -> Router {
    Router::new().fallback(nothing_here).merge(routes(shared)).with_state(shared.clone())
}

/// What players are given.
pub(crate) fn routes(shared: &Shared) -> Router<Shared> {
    Router::new().route("/liveqos-player.js", get(script::script)).layer(shared.gate.cors())
}

/// The ways in on which players post, hundreds of times a second: they stand before the routes of an address, since
/// finding a route and its layers cost more than a report.
#[derive(Clone)]
pub(crate) struct PlayerEndpoints(Arc<Shared>);

impl PlayerEndpoints {
    /// The ways, behind the rules for other origins' pages.
    pub(crate) fn of(shared: Shared) -> PlayerService {
        shared.gate.cors().layer(Self(Arc::new(shared)))
    }
}

/// [`PlayerEndpoints`], behind the rules for other origins' pages.
pub(crate) type PlayerService = Cors<PlayerEndpoints>;

impl Service<Request<Incoming>> for PlayerEndpoints {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { Ok(pass(&shared, request).await) })
    }
}

/// Whether this is the path of one of the [`PlayerEndpoints`].
#[must_use]
pub(crate) fn is_way(path: &str) -> bool {
    path == BEACON || path == CMCD
}

/// Whether a connection is a player's, by the first [`FIRST_WORDS`] bytes of its first request.
#[must_use]
pub(crate) fn is_of_players(words: &[u8]) -> bool {
    PLAYERS_WORDS.iter().any(|start| words.starts_with(start))
}

/// The address that faces players alone, and its certificate.
pub(crate) struct PlayerListener {
    address: SocketAddr,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

impl PlayerListener {
    /// Opens it, where one is configured.
    ///
    /// # Errors
    /// When the address cannot be bound or the certificate cannot be read.
    pub(crate) async fn open(
        settings: &IngestSettings,
        shared: &Shared,
        hall: &BatchingRuntime,
        stopped: watch::Receiver<bool>,
    ) -> Result<Option<Self>> {
        if settings.listen.is_empty() {
            return Ok(None);
        }
        let tls = tls::server(&settings.tls).context("ingest.tls")?.map(|tls| Arc::new(ArcSwap::from_pointee(tls)));
        let listener = TcpListener::bind(&settings.listen).await;
        let listener = listener.and_then(|listener| hall.adopt(listener));
        let listener = listener.with_context(|| format!("listening on {} (ingest.listen)", settings.listen))?;
        let address = listener.local_addr()?;
        let site = ListenerConfig {
            router: router(shared),
            door: PlayerEndpoints::of(shared.clone()),
            tls: tls.clone(),
            places: hall.places(),
            shed_reason: PLAYERS_SHED,
            meters: shared.meters.clone(),
            hall: None,
        };
        hall.spawn(server::serve(listener, site, stopped));
        Ok(Some(Self { address, tls }))
    }

    /// Where it is.
    #[must_use]
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes a renewed certificate for connections that come from now on.
    pub(crate) fn renew(&self, certificate: ServerConfig) {
        if let Some(tls) = &self.tls {
            tls.store(Arc::new(certificate));
        }
    }
}

/// Lets a request in, or answers 429; then its method and its body must be right.
async fn pass(shared: &Shared, request: Request<Incoming>) -> Response {
    let peer = request.extensions().get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(peer)| peer.ip());
    let source = shared.gate.source(peer, request.headers());
    if let Err(wait) = shared.gate.limiter.take(source, shared.gate.since.elapsed()) {
        shared.meters.shed(ShedReason::SourceRate, 1);
        return later("too_often", "this address asks too often; report less often, or more at once", wait);
    }
    let is_beacon = request.uri().path() == BEACON;
    let taken = if is_beacon { &[Method::POST][..] } else { &[Method::POST, Method::GET, Method::HEAD] };
    if !taken.contains(request.method()) {
        let taken = if is_beacon { "POST" } else { "GET,HEAD,POST" };
        return ([(header::ALLOW, taken)], wrong_method().await).into_response();
    }
    match body::taken(request).await {
        Ok(request) if is_beacon => super::beacon::take(shared, source, &request),
        Ok(request) => super::cmcd::take(shared, peer, source, &request),
        Err(wrong) => wrong.answer(&shared.meters),
    }
}

/// 429: come again after `wait`, to whole seconds.
#[must_use]
pub(crate) fn later(code: &'static str, message: &str, wait: Duration) -> Response {
    let seconds = HeaderValue::from(wait.as_secs().max(1) + u64::from(wait.subsec_nanos() > 0));
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, message);
    ([(header::RETRY_AFTER, seconds)], error).into_response()
}

const BEACON: &str = "/v1/beacon";
const CMCD: &str = "/v1/cmcd";
/// How many bytes of a request show that it is a player's.
pub(crate) const FIRST_WORDS: usize = 16;
const PLAYERS_WORDS: [&[u8]; 5] =
    [b"POST /v1/beacon", b"POST /v1/cmcd", b"GET /v1/cmcd", b"OPTIONS /v1/", b"GET /liveqos-pla"];
/// What a page may send beside what any page may.
const ASKED_HEADERS: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    HeaderName::from_static("cmcd-request"),
    HeaderName::from_static("cmcd-object"),
    HeaderName::from_static("cmcd-status"),
    HeaderName::from_static("cmcd-session"),
];
/// How long a browser need not ask again; Chromium believes two hours at most.
const PREFLIGHT_KEPT: Duration = Duration::from_hours(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: &str, forwarded: &[&'static str]) -> String {
        let gate = ClientPolicy::new(&IngestSettings {
            trusted_proxies: vec!["127.0.0.1".to_owned(), "10.0.0.0/8".to_owned()],
            ..IngestSettings::default()
        });
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        let gate = gate.expect("good");
        let source = gate.source(peer.parse().expect("an address"), &headers);
        assert_eq!(gate.viewer(source).is_none(), source.to_string() == peer && source.is_loopback());
        source.to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_word() {
        assert_eq!(source("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "a stranger says what it likes");
        assert_eq!(source("127.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(source("127.0.0.1", &["6.6.6.6, 198.51.100.7"]), "198.51.100.7", "the rest is the client's word");
        assert_eq!(source("127.0.0.1", &["6.6.6.6", "198.51.100.7, 10.1.1.1"]), "198.51.100.7");
        assert_eq!(source("127.0.0.1", &["unknown"]), "127.0.0.1");
        assert_eq!(source("127.0.0.1", &[]), "127.0.0.1");
    }
}
