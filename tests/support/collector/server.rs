//! The running collector.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsServiceServer;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::MetricsServiceServer;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::grpc::Service;
use super::http::export;
use super::messages::{Received, Reply};
use super::script::Script;
use crate::ports::LOOPBACK;
use crate::wait::PATIENCE;

/// The running collector; stops when closed or dropped.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    script: Arc<Script>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Collector {
    /// Starts one for gRPC on a free port.
    #[must_use]
    pub fn grpc() -> Self {
        Self::grpc_on(LOOPBACK, None)
    }

    /// The same on `address`, over TLS where it has an identity.
    #[must_use]
    pub fn grpc_on(address: SocketAddr, identity: Option<Identity>) -> Self {
        Self::grpc_with(address, identity.map(|identity| ServerTlsConfig::new().identity(identity)))
    }

    /// The same with these settings of TLS.
    #[must_use]
    pub fn grpc_with(address: SocketAddr, tls: Option<ServerTlsConfig>) -> Self {
        let listener = bind(address);
        let address = listener.local_addr().unwrap();
        let script = Arc::<Script>::default();
        let service = Service(Arc::clone(&script));
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let router = server
            .add_service(TraceServiceServer::new(service.clone()).accept_compressed(GZIP).accept_compressed(ZSTD))
            .add_service(MetricsServiceServer::new(service.clone()).accept_compressed(GZIP).accept_compressed(ZSTD))
            .add_service(LogsServiceServer::new(service).accept_compressed(GZIP).accept_compressed(ZSTD));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener);
            let stopped = async { stopped.await.unwrap_or_default() };
            router.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        Self { address, script, stop, task }
    }

    /// Starts one for OTLP/HTTP on a free port.
    #[must_use]
    pub fn http() -> Self {
        Self::http_on(LOOPBACK)
    }

    /// The same on `address`.
    #[must_use]
    pub fn http_on(address: SocketAddr) -> Self {
        let listener = bind(address);
        let address = listener.local_addr().unwrap();
        let script = Arc::<Script>::default();
        let router = axum::Router::new()
            .route("/v1/{signal}", axum::routing::post(export))
            .layer(DefaultBodyLimit::max(8 << 20))
            .with_state(Arc::clone(&script));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            axum::serve(listener, router).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { address, script, stop, task }
    }

    /// Stops it and waits until its port is free.
    pub async fn close(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }

    /// Its endpoint, without TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Responds to the next requests of `signal` (`traces`, `metrics`, `logs`) in this order, then as [`Self::always`].
    pub fn script(&self, signal: &'static str, replies: impl IntoIterator<Item = Reply>) {
        let mut script = self.script.next.lock().unwrap();
        script.entry(signal).or_default().extend(replies);
    }

    /// Responds so to every request that has nothing else scripted; `None`: takes them.
    pub fn always(&self, reply: Option<Reply>) {
        *self.script.always.lock().unwrap() = reply;
    }

    /// All requests so far, in the order of their arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.script.received.lock().unwrap().clone()
    }

    /// All requests as soon as `enough` holds for them.
    pub async fn wait(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let all = async {
            loop {
                let arrived = self.script.arrived.notified();
                let received = self.received();
                if enough(&received) {
                    return received;
                }
                arrived.await;
            }
        };
        let all = tokio::time::timeout(PATIENCE, all).await;
        all.unwrap_or_else(|_| panic!("still waiting with {:?}", self.received()))
    }

    /// All accepted spans as soon as there are `count`.
    pub async fn spans(&self, count: usize) -> Vec<Span> {
        let spans = |received: &[Received]| -> Vec<Span> {
            received.iter().filter(|r| r.taken).flat_map(Received::spans).collect()
        };
        spans(&self.wait(|received| spans(received).len() >= count).await)
    }
}

/// Binds, also to a reserved port and to one that another collector has just left.
fn bind(address: SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

const GZIP: CompressionEncoding = CompressionEncoding::Gzip;
const ZSTD: CompressionEncoding = CompressionEncoding::Zstd;
