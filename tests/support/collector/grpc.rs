//! OTLP over gRPC: the generated services of tonic.

use std::sync::Arc;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsService;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::MetricsService;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use tonic::{Request, Response, Status};

use super::messages::{Body, Received, Reply};
use super::script::{LOGS, METRICS, Script, TRACES, trace_response};

#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Script>);

impl Service {
    /// The number rejected where the request is taken.
    async fn respond<T: Message>(
        &self,
        signal: &'static str,
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
            Some(other) => panic!("no gRPC response: {other:?}"),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let rejected = self.respond(TRACES, request, Body::Traces).await?;
        Ok(Response::new(trace_response(rejected)))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.respond(METRICS, request, Body::Metrics).await?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.respond(LOGS, request, Body::Logs).await?;
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
