//! Connections of a listener, plain or over TLS, and the requests on them. Decides how many connections there may be,
//! how long a handshake, the head of a request and a connection may take, and which connections the
//! [`BatchingRuntime`] serves; closes connections beyond a bound at once and counts them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use liveqos_core::metrics::ShedReason;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::batching_runtime::BatchingRuntime;
use super::shutdown::{SHUTDOWN_GRACE, requested};
use crate::platform::SelfMetrics;

/// Most connections at once to the main address, those of players not counted.
pub(crate) const MAX_CONNECTIONS: usize = 1_024;

/// Longest time for a TLS handshake, for the head of a request, and between two requests of a connection.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request, in bytes.
pub(crate) const MAX_HEAD: usize = 32 * 1024;

/// Longest life of a connection: a client that reads its response slowly must not hold it for longer.
pub(crate) const CONNECTION_LIFE: Duration = Duration::from_mins(5);

/// How many bytes of a connection's first request a [`DispatchRule`] sees.
pub(crate) const SNIFF_BYTES: usize = 16;

/// What answers the requests of a listener.
pub(crate) trait HttpService: Clone + Send + 'static {
    /// Answers one request of a connection from `peer`.
    fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> impl Future<Output = Response> + Send;
}

/// What a listener serves, and its bounds.
#[derive(Clone)]
pub(crate) struct ListenerConfig<S> {
    /// What answers requests.
    pub service: S,
    /// Certificate and key, replaced when they are renewed; plain HTTP without.
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    /// One permit for each connection.
    pub permits: Arc<Semaphore>,
    /// The reason in `liveqos_shed_total` of a connection without a permit.
    pub shed_reason: ShedReason,
    /// The daemon's own metrics.
    pub meters: SelfMetrics,
    /// Which connections another runtime serves; `None` where all stay here.
    pub dispatch: Option<DispatchRule>,
}

/// Which connections of a listener a [`BatchingRuntime`] serves.
#[derive(Clone)]
pub(crate) struct DispatchRule {
    /// Where they are served.
    pub runtime: BatchingRuntime,
    /// Whether the first [`SNIFF_BYTES`] bytes of a connection belong there.
    pub accepts: fn(&[u8]) -> bool,
    /// Whether a request for this path belongs there. The response to any other closes the connection, so that the
    /// client's next request does not wait for the runtime's next poll.
    pub accepts_path: fn(&str) -> bool,
    /// The reason in `liveqos_shed_total` of a connection for which the runtime has no permit.
    pub shed_reason: ShedReason,
}

/// Serves a listener until `stop` turns true; open connections then have [`SHUTDOWN_GRACE`] to finish.
pub(crate) async fn serve<S: HttpService>(
    listener: TcpListener,
    config: ListenerConfig<S>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = requested(&mut stop) => break,
        };
        let Ok((stream, peer)) = accepted else {
            // No file descriptor is left, or the peer is gone: retrying at once does not help.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&config.permits).try_acquire_owned() else {
            config.meters.shed(config.shed_reason, 1);
            continue;
        };
        let connection = Connection { peer, config: config.clone(), stop: stop.clone(), stays_on: None, permit };
        match config.dispatch.clone() {
            None => drop(tokio::spawn(connection.handshake(stream))),
            Some(rule) => drop(tokio::spawn(connection.dispatch(rule, stream))),
        }
    }
}

/// A connection and what is needed to serve it.
struct Connection<S> {
    peer: SocketAddr,
    config: ListenerConfig<S>,
    stop: watch::Receiver<bool>,
    /// On a batching runtime: the paths for which the connection stays open.
    stays_on: Option<fn(&str) -> bool>,
    /// Released when the connection ends.
    permit: OwnedSemaphorePermit,
}

impl<S: HttpService> Connection<S> {
    /// Serves the connection on the runtime where its first request belongs.
    async fn dispatch(mut self, rule: DispatchRule, stream: TcpStream) {
        let mut bytes = [0; SNIFF_BYTES];
        let peeked = tokio::select! {
            peeked = tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut bytes)) => peeked,
            () = requested(&mut self.stop) => return,
        };
        // A client that sent nothing in time is dropped. Peeked bytes remain to be read.
        let Ok(Ok(count)) = peeked else {
            return;
        };
        if !(rule.accepts)(&bytes[..count]) {
            return self.handshake(stream).await;
        }
        let Ok(permit) = rule.runtime.try_acquire() else {
            return self.config.meters.shed(rule.shed_reason, 1);
        };
        (self.stays_on, self.permit) = (Some(rule.accepts_path), permit);
        if let Ok(stream) = stream.into_std() {
            rule.runtime.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    self.handshake(stream).await;
                }
            });
        }
    }

    /// Serves the connection, over TLS where the listener has a certificate.
    async fn handshake(self, stream: TcpStream) {
        let Some(tls) = &self.config.tls else {
            return self.serve(stream).await;
        };
        let accepting = TlsAcceptor::from(tls.load_full()).accept(stream);
        match tokio::time::timeout(HEAD_TIMEOUT, accepting).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            _ => self.config.meters.shed(ShedReason::TlsHandshake, 1),
        }
    }

    /// Answers the requests of the connection.
    async fn serve<T>(mut self, stream: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (service, peer, stays_on) = (self.config.service, self.peer, self.stays_on);
        let service = service_fn(move |request: Request<Incoming>| {
            let service = service.clone();
            let closes = stays_on.is_some_and(|stays_on| !stays_on(request.uri().path()));
            async move {
                let response = service.answer(request, peer).await;
                Ok::<_, Infallible>(if closes { closing(response) } else { response })
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            // Also when the client broke the connection off, which needs no action.
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(CONNECTION_LIFE) => {}
            () = requested(&mut self.stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(tokio::time::timeout(SHUTDOWN_GRACE, connection).await);
    }
}

/// The response, as the last one of its connection.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
