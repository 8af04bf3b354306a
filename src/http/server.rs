//! HTTP connections accepted within bounds, plain or by TLS. Decides how many there may be, how long a client may take
//! for its handshake and its request's head, how long a connection lives, and which are served in the hall; refuses
//! more by closing them at once, counted.

use liveqos_core::metrics::ShedReason;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::batching_runtime::BatchingRuntime;
use crate::platform::SelfMetrics;
use crate::players::{Peer, PlayerService, listener};

/// Most connections at once to the main address, players' not counted.
pub(crate) const MAX_CONNECTIONS: usize = 1_024;

/// Longest time for a TLS handshake, for a request's head, and between two requests of one connection.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request, in bytes.
pub(crate) const MAX_HEAD: usize = 32 * 1024;

/// Longest life of a connection: a client that takes its answer drop by drop holds its place no longer.
pub(crate) const CONNECTION_LIFE: Duration = Duration::from_mins(5);

/// What is served at an address.
#[derive(Clone)]
pub(crate) struct ListenerConfig {
    /// The routes.
    pub router: Router,
    /// What stands before them.
    pub door: PlayerService,
    /// Certificate and key, replaced when they are renewed; plain HTTP without.
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    /// Places for connections.
    pub places: Arc<Semaphore>,
    /// What a connection beyond it is counted as in `liveqos_shed_total`.
    pub shed_reason: ShedReason,
    /// The daemon's counters.
    pub meters: SelfMetrics,
    /// Where players are served, of an address that has others too: whoever first asks for one of their ways.
    pub hall: Option<BatchingRuntime>,
}

/// Serves `site` until `stop` turns true; open connections then have a second to end.
pub(crate) async fn serve(listener: TcpListener, site: ListenerConfig, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut stop) => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors or a peer that left: neither gets better by asking at once.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&site.places).try_acquire_owned() else {
            site.meters.shed(site.shed_reason, 1);
            continue;
        };
        let guest = Connection { peer: Peer(peer), site: site.clone(), stop: stop.clone(), leaves: false, place };
        match site.hall.clone() {
            None => drop(tokio::spawn(guest.converse(stream))),
            Some(hall) => drop(tokio::spawn(guest.show_in(hall, stream))),
        }
    }
}

/// Who holds a connection, and what is needed to serve it.
struct Connection {
    peer: Peer,
    site: ListenerConfig,
    stop: watch::Receiver<bool>,
    /// Whether it has to leave when it asks for what is not the players': elsewhere it waits for nobody's rest.
    leaves: bool,
    /// Free again when the connection ends.
    place: OwnedSemaphorePermit,
}

impl Connection {
    /// Serves the connection where its first request belongs.
    async fn show_in(mut self, hall: BatchingRuntime, stream: TcpStream) {
        let mut words = [0; listener::FIRST_WORDS];
        let heard = tokio::select! {
            heard = tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut words)) => heard,
            () = told(&mut self.stop) => return,
        };
        // Who left or said nothing in time is gone; what is peeked at stays there to be read.
        let Ok(Ok(count)) = heard else {
            return;
        };
        if !listener::is_of_players(&words[..count]) {
            return self.converse(stream).await;
        }
        let Ok(place) = hall.place() else {
            return self.site.meters.shed(PLAYERS_SHED, 1);
        };
        (self.leaves, self.place) = (true, place);
        if let Ok(stream) = stream.into_std() {
            hall.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    self.converse(stream).await;
                }
            });
        }
    }

    /// Serves the connection, by TLS where the site has it.
    async fn converse(self, stream: TcpStream) {
        let Some(tls) = &self.site.tls else {
            return self.talk(stream).await;
        };
        let accepting = TlsAcceptor::from(tls.load_full()).accept(stream);
        match tokio::time::timeout(HEAD_TIMEOUT, accepting).await {
            Ok(Ok(stream)) => self.talk(stream).await,
            _ => self.site.meters.shed(ShedReason::TlsHandshake, 1),
        }
    }

    /// Answers the requests of the connection.
    async fn talk<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let ListenerConfig { router, door, .. } = self.site;
        let (peer, leaves) = (self.peer, self.leaves);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (mut door, mut router) = (door.clone(), router.clone());
            async move {
                if listener::is_way(request.uri().path()) {
                    request.extensions_mut().insert(peer);
                    return door.call(request).await;
                }
                let answer = router.call(request).await?;
                Ok(if leaves { last(answer) } else { answer })
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            // A client that breaks off is its own affair.
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(CONNECTION_LIFE) => {}
            () = told(&mut self.stop) => {}
        }
        // What is being answered may be said to its end.
        connection.as_mut().graceful_shutdown();
        drop(tokio::time::timeout(LAST_WORD, connection).await);
    }
}

/// The same answer as the last one of its connection.
fn last(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Ends when `stop` turns true, or when nobody is left to turn it.
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// What a player's connection is counted as for which there is no place.
pub(crate) const PLAYERS_SHED: ShedReason = ShedReason::IngestConnections;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection has to end when it must.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(1);
