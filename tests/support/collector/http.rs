//! OTLP/HTTP: the paths `/v1/traces`, `/v1/metrics` and `/v1/logs`.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use prost::Message;

use super::messages::{Body, Received, Reply};
use super::script::{LOGS, METRICS, Script, TRACES, trace_response};

pub(super) async fn export(
    State(script): State<Arc<Script>>,
    axum::extract::Path(signal): axum::extract::Path<String>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
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
        "traces" => (TRACES, Body::Traces(decode(&raw))),
        "metrics" => (METRICS, Body::Metrics(decode(&raw))),
        "logs" => (LOGS, Body::Logs(decode(&raw))),
        other => panic!("no such path: {other}"),
    };
    let reply = script.next(signal);
    script.keep(Received {
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
        Some(other) => panic!("no HTTP response: {other:?}"),
    }
}

fn decode<T: Message + Default>(raw: &[u8]) -> T {
    T::decode(raw).unwrap()
}
