//! HTTP connections accepted within bounds, plain or by TLS. Decides how many there may be, how long a client may take for its handshake
//! and its request's head, and how long a connection lives; refuses more by closing them at once, counted.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::ingest::Peer;
use crate::meters::Meters;

/// Most connections at once to the main address.
pub const MAX_CONNECTIONS: usize = 1_024;

/// Longest time for a TLS handshake, for a request's head, and between two requests of one connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request, in bytes.
pub const MAX_HEAD: usize = 32 * 1024;

/// Longest life of a connection: a client that takes its answer drop by drop holds its place no longer.
pub const CONNECTION_LIFE: Duration = Duration::from_mins(5);

/// What is served at an address.
#[derive(Clone)]
pub struct Site {
    /// The routes.
    pub router: Router,
    /// Certificate and key, replaced when they are renewed; plain HTTP without.
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    /// Most connections at once.
    pub max_connections: usize,
    /// What a connection beyond it is counted as in `liveqos_shed_total`.
    pub shed_reason: &'static str,
    /// The daemon's counters.
    pub meters: Meters,
}

/// Serves `site` until `stop` turns true; open connections then have a second to end.
pub async fn serve(listener: TcpListener, site: Site, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(site.max_connections));
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
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            site.meters.shed(site.shed_reason, 1);
            continue;
        };
        let (site, stop, peer) = (site.clone(), stop.clone(), Peer(peer));
        tokio::spawn(async move {
            match &site.tls {
                None => talk(stream, site.router, peer, stop).await,
                Some(tls) => {
                    let accepting = TlsAcceptor::from(tls.load_full()).accept(stream);
                    match tokio::time::timeout(HEAD_TIMEOUT, accepting).await {
                        Ok(Ok(stream)) => talk(stream, site.router, peer, stop).await,
                        _ => site.meters.shed("tls_handshake", 1),
                    }
                }
            }
            drop(place);
        });
    }
}

/// Answers the requests of one connection.
async fn talk<S>(stream: S, router: Router, peer: Peer, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // A client that breaks off is its own affair.
        _ = connection.as_mut() => {}
        () = tokio::time::sleep(CONNECTION_LIFE) => {}
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            drop(tokio::time::timeout(LAST_WORD, connection).await);
        }
    }
}

/// Ends when `stop` turns true, or when nobody is left to turn it.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const LAST_WORD: Duration = Duration::from_secs(1);
