//! HTTP connections accepted within bounds. Decides how many there may be and how long a client may take for its request's head;
//! refuses more by closing them at once, counted.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::ingest::Peer;
use crate::meters::Meters;

/// Most connections at once.
pub const MAX_CONNECTIONS: usize = 1_024;

/// Longest time for a request's head, and between two requests of one connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest life of a connection: a client that takes its answer drop by drop holds its place no longer.
pub const CONNECTION_LIFE: Duration = Duration::from_mins(5);

/// Serves `router` until `stop` turns true; open connections then have a second to end.
pub async fn serve(listener: TcpListener, router: Router, meters: Meters, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
            meters.shed("http_connections", 1);
            continue;
        };
        let routes = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            routes.call(request)
        });
        let mut stop = stop.clone();
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
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
            drop(place);
        });
    }
}

/// Ends when `stop` turns true, or when nobody is left to turn it.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const LAST_WORD: Duration = Duration::from_secs(1);
