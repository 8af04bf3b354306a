//! A collector on loopback: the generated OTLP services of tonic, and the HTTP paths on axum. It answers by a script,
//! keeps what it accepted, and lets a test wait for it.

use std::collections::{HashMap, VecDeque};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response as HttpResponse};
use liveqos::otlp::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

/// What the collector answers to the next request of a signal.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Takes it, save so many.
    Partial(i64),
    /// Refuses with a gRPC code and `grpc-status-details-bin`.
    Code(Code, Vec<u8>),
    /// Refuses with an HTTP status and `Retry-After`.
    Http(u16, Option<&'static str>),
    /// Answers 200 with a body that is no protobuf.
    Html,
    /// Never answers.
    Hang,
    /// Takes it after this long.
    Slow(Duration),
}

/// A request that reached the collector.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    pub(crate) encoding: String,
    pub(crate) authorization: String,
    /// Bytes before compression.
    pub(crate) len: usize,
    /// Whether it was accepted.
    pub(crate) taken: bool,
    pub(crate) at: Instant,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

impl Received {
    pub(crate) fn spans(&self) -> Vec<Span> {
        let Body::Traces(request) = &self.body else {
            return Vec::new();
        };
        let [resource] = request.resource_spans.as_slice() else {
            panic!("one resource");
        };
        let [scope] = resource.scope_spans.as_slice() else {
            panic!("one scope");
        };
        scope.spans.clone()
    }

    pub(crate) fn logs(&self) -> Vec<LogRecord> {
        match &self.body {
            Body::Logs(request) => request.resource_logs[0].scope_logs[0].log_records.clone(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn metrics(&self) -> Vec<Metric> {
        match &self.body {
            Body::Metrics(request) => request.resource_metrics[0].scope_metrics[0].metrics.clone(),
            _ => Vec::new(),
        }
    }
}

#[derive(Default)]
struct Inner {
    received: Mutex<Vec<Received>>,
    script: Mutex<HashMap<Signal, VecDeque<Reply>>>,
    mood: Mutex<Option<Reply>>,
    came: Notify,
}

/// The running collector; stops when closed or dropped.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Collector {
    pub(crate) fn grpc() -> Self {
        Self::grpc_on(LOOPBACK, None)
    }

    pub(crate) fn grpc_on(address: SocketAddr, identity: Option<Identity>) -> Self {
        Self::grpc_with(address, identity.map(|identity| ServerTlsConfig::new().identity(identity)))
    }

    pub(crate) fn grpc_with(address: SocketAddr, tls: Option<ServerTlsConfig>) -> Self {
        let listener = bind(address);
        let address = listener.local_addr().unwrap();
        let inner = Arc::<Inner>::default();
        let service = Service(Arc::clone(&inner));
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
        Self { address, inner, stop, task }
    }

    pub(crate) fn http() -> Self {
        Self::http_on(LOOPBACK)
    }

    pub(crate) fn http_on(address: SocketAddr) -> Self {
        let listener = bind(address);
        let address = listener.local_addr().unwrap();
        let inner = Arc::<Inner>::default();
        let router = axum::Router::new()
            .route("/v1/{signal}", axum::routing::post(http))
            .layer(DefaultBodyLimit::max(8 << 20))
            .with_state(Arc::clone(&inner));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            axum::serve(listener, router).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { address, inner, stop, task }
    }

    /// Stops it and waits until its port is free.
    pub(crate) async fn close(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next requests of `signal` so, then accepts.
    pub(crate) fn script(&self, signal: Signal, replies: impl IntoIterator<Item = Reply>) {
        let mut script = self.inner.script.lock().unwrap();
        script.entry(signal).or_default().extend(replies);
    }

    /// Answers every request so that has nothing else scripted; takes them again with `None`.
    pub(crate) fn mood(&self, reply: Option<Reply>) {
        *self.inner.mood.lock().unwrap() = reply;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.inner.received.lock().unwrap().clone()
    }

    /// All that came once `enough` holds.
    pub(crate) async fn wait(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let all = async {
            loop {
                let came = self.inner.came.notified();
                let received = self.received();
                if enough(&received) {
                    return received;
                }
                came.await;
            }
        };
        let all = tokio::time::timeout(PATIENCE, all).await;
        all.unwrap_or_else(|_| panic!("still waiting with {:?}", self.received()))
    }

    /// All spans accepted once there are `count`.
    pub(crate) async fn spans(&self, count: usize) -> Vec<Span> {
        let spans = |received: &[Received]| -> Vec<Span> {
            received.iter().filter(|r| r.taken).flat_map(Received::spans).collect()
        };
        spans(&self.wait(|received| spans(received).len() >= count).await)
    }
}

impl Inner {
    fn next(&self, signal: Signal) -> Option<Reply> {
        let scripted = self.script.lock().unwrap().get_mut(&signal).and_then(VecDeque::pop_front);
        scripted.or_else(|| self.mood.lock().unwrap().clone())
    }

    fn keep(&self, received: Received) {
        self.received.lock().unwrap().push(received);
        self.came.notify_waiters();
    }
}

#[derive(Clone)]
struct Service(Arc<Inner>);

impl Service {
    /// The number rejected where the request is taken.
    async fn answer<T: Message>(
        &self,
        signal: Signal,
        request: Request<T>,
        body: fn(T) -> Body,
    ) -> Result<i64, Status> {
        let reply = self.0.next(signal);
        let header = |name| match request.metadata().get(name) {
            Some(value) => value.to_str().unwrap().to_owned(),
            None => String::new(),
        };
        let (encoding, authorization) = (header("grpc-encoding"), header("authorization"));
        let message = request.into_inner();
        self.0.keep(Received {
            signal,
            encoding,
            authorization,
            len: message.encoded_len(),
            taken: matches!(reply, None | Some(Reply::Partial(_) | Reply::Slow(_))),
            at: Instant::now(),
            body: body(message),
        });
        match reply {
            None => Ok(0),
            Some(Reply::Partial(rejected)) => Ok(rejected),
            Some(Reply::Code(code, details)) => Err(Status::with_details(code, "scripted", details.into())),
            Some(Reply::Hang) => std::future::pending().await,
            Some(Reply::Slow(time)) => {
                tokio::time::sleep(time).await;
                Ok(0)
            }
            Some(other) => panic!("no gRPC answer: {other:?}"),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let rejected = self.answer(Signal::Traces, request, Body::Traces).await?;
        Ok(Response::new(trace_response(rejected)))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.answer(Signal::Metrics, request, Body::Metrics).await?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.answer(Signal::Logs, request, Body::Logs).await?;
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

async fn http(
    State(inner): State<Arc<Inner>>,
    axum::extract::Path(signal): axum::extract::Path<String>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> HttpResponse {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    assert_eq!(header("content-type"), "application/x-protobuf");
    let encoding = header("content-encoding");
    let mut raw = Vec::new();
    match encoding.as_str() {
        "gzip" => flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut raw).unwrap(),
        "zstd" => zstd::Decoder::new(&body[..]).unwrap().read_to_end(&mut raw).unwrap(),
        _ => (&body[..]).read_to_end(&mut raw).unwrap(),
    };
    let len = raw.len();
    let (signal, body) = match signal.as_str() {
        "traces" => (Signal::Traces, Body::Traces(decode(&raw))),
        "metrics" => (Signal::Metrics, Body::Metrics(decode(&raw))),
        "logs" => (Signal::Logs, Body::Logs(decode(&raw))),
        other => panic!("no such path: {other}"),
    };
    let reply = inner.next(signal);
    inner.keep(Received {
        signal,
        encoding,
        authorization: header("authorization"),
        len,
        taken: matches!(reply, None | Some(Reply::Partial(_) | Reply::Html | Reply::Slow(_))),
        at: Instant::now(),
        body,
    });
    match reply {
        None => trace_response(0).encode_to_vec().into_response(),
        Some(Reply::Partial(rejected)) => trace_response(rejected).encode_to_vec().into_response(),
        Some(Reply::Html) => "<html>".into_response(),
        Some(Reply::Hang) => std::future::pending().await,
        Some(Reply::Slow(time)) => {
            tokio::time::sleep(time).await;
            trace_response(0).encode_to_vec().into_response()
        }
        Some(Reply::Http(status, retry_after)) => {
            let status = StatusCode::from_u16(status).unwrap();
            match retry_after {
                Some(after) => (status, [("retry-after", after)]).into_response(),
                None => status.into_response(),
            }
        }
        Some(other) => panic!("no HTTP answer: {other:?}"),
    }
}

fn decode<T: Message + Default>(raw: &[u8]) -> T {
    T::decode(raw).unwrap()
}

fn trace_response(rejected: i64) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: (rejected > 0)
            .then(|| ExportTracePartialSuccess { rejected_spans: rejected, error_message: "too old".to_owned() }),
    }
}

/// Binds, also to a port that another collector of this test has just left.
fn bind(address: SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

const GZIP: CompressionEncoding = CompressionEncoding::Gzip;
const ZSTD: CompressionEncoding = CompressionEncoding::Zstd;
/// Any free port.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How long a test waits before it is called hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
