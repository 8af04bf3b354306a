//! OTLP/gRPC over tonic's channel. Frames the stored bytes itself, so that nothing is decoded, encoded or compressed
//! twice.
//!
//! A unary call is one HTTP/2 request whose body is a flag byte (1 = compressed), the length (4 bytes, big-endian) and
//! the message; the status is in the trailers, or in the headers where there is no message (gRPC over HTTP/2).

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use tonic::body::Body;
use tonic::codegen::{Body as _, Service as _, http};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Status};

use super::endpoint::{Endpoint, MAX_RESPONSE_BYTES, USER_AGENT};
use crate::otlp::payload::Payload;
use crate::otlp::retry::{Answer, read_response, retry_info};
use crate::platform::error_chain::chain;

/// A client of one export method.
pub(crate) struct Grpc {
    endpoint: tonic::transport::Endpoint,
    /// Dropped when an answer is missing: a connection whose peer vanished looks open for many minutes.
    channel: Option<Channel>,
    path: &'static str,
    headers: HeaderMap,
    timeout: Duration,
}

impl Grpc {
    /// The client of `target`, not connected yet.
    ///
    /// # Errors
    /// A message where it cannot be built.
    pub(crate) fn new(target: Endpoint) -> Result<Self, String> {
        let mut endpoint = tonic::transport::Endpoint::from_shared(target.url.to_string())
            .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
            .map_err(|error| chain(&error))?
            .connect_timeout(target.timeout);
        if target.url.scheme() == "https" {
            let mut tls = match target.authorities {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            if let Some((certificate, key)) = target.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(|error| chain(&error))?;
        }
        Ok(Self {
            endpoint,
            channel: None,
            path: target.signal.rpc_path(),
            headers: target.headers,
            timeout: target.timeout,
        })
    }

    /// Starts a request.
    pub(crate) fn start(&mut self, payload: &Payload) -> impl Future<Output = Answer> + Send + use<> {
        let (request, timeout) = (self.request(payload), self.timeout);
        let channel = self.channel.get_or_insert_with(|| self.endpoint.connect_lazy()).clone();
        async move {
            let answer = tokio::time::timeout(timeout, exchange(channel, request)).await;
            answer.unwrap_or_else(|_| Answer::Silence(format!("no answer within {timeout:?}")))
        }
    }

    /// Makes the next request use a new connection.
    pub(crate) fn reconnect(&mut self) {
        self.channel = None;
    }

    fn request(&self, payload: &Payload) -> http::Request<Body> {
        let mut body = BytesMut::with_capacity(PREFIX + payload.bytes.len());
        body.put_u8(u8::from(payload.encoding().is_some()));
        // A batch has at most 4 MiB, far below the field's 4 GiB.
        body.put_u32(u32::try_from(payload.bytes.len()).unwrap_or(u32::MAX));
        body.put_slice(&payload.bytes);
        let mut request = http::Request::new(Body::new(reqwest::Body::from(body.freeze())));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = http::Uri::from_static(self.path);
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        if let Some(encoding) = payload.encoding() {
            headers.insert("grpc-encoding", HeaderValue::from_static(encoding));
        }
        // At most eight digits and a unit; an hour in milliseconds has seven.
        if let Ok(timeout) = HeaderValue::try_from(format!("{}m", self.timeout.as_millis())) {
            headers.insert("grpc-timeout", timeout);
        }
        request
    }
}

impl std::fmt::Debug for Grpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Grpc({}{})", self.endpoint.uri(), self.path)
    }
}

async fn exchange(mut channel: Channel, request: http::Request<Body>) -> Answer {
    if let Err(error) = poll_fn(|context| channel.poll_ready(context)).await {
        return Answer::Silence(chain(&error));
    }
    let (head, body) = match channel.call(request).await {
        Ok(response) => response.into_parts(),
        Err(error) => return Answer::Silence(chain(&error)),
    };
    if let Some(status) = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok) {
        return refusal(&status);
    }
    let content = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if head.status != http::StatusCode::OK || !content.is_some_and(|kind| kind.starts_with(CONTENT.as_bytes())) {
        return without_grpc_status(head.status.as_u16());
    }
    match collect(body).await {
        Ok((message, trailers)) => {
            match Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&head.headers)) {
                Some(status) if status.code() == Code::Ok => accepted(&message, head.headers.get("grpc-encoding")),
                Some(status) => refusal(&status),
                None => Answer::Silence("the answer ended before its status".to_owned()),
            }
        }
        Err(answer) => answer,
    }
}

/// Reads body and trailers, at most [`MAX_RESPONSE_BYTES`].
async fn collect(mut body: Body) -> Result<(Bytes, HeaderMap), Answer> {
    let (mut message, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|status| Answer::Silence(chain(&status)))?;
        match frame.into_data() {
            Ok(data) if message.len() + data.len() > MAX_RESPONSE_BYTES => {
                return Err(Answer::Unreadable(format!("over {MAX_RESPONSE_BYTES} bytes")));
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((message.freeze(), trailers))
}

/// The answer in one message, which a server may compress like the request (the Collector does).
fn accepted(message: &[u8], encoding: Option<&HeaderValue>) -> Answer {
    let (flag, inner) = match message {
        [flag @ 0..=1, a, b, c, d, inner @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == inner.len() => {
            (*flag, inner)
        }
        _ => return Answer::Unreadable("not one grpc message".to_owned()),
    };
    let unpacked = if flag == 0 { Ok(inner.to_vec()) } else { unpacked(inner, encoding.map(HeaderValue::as_bytes)) };
    let read = unpacked.and_then(|bytes| read_response(&bytes).map_err(|error| error.to_string()));
    read.map_or_else(Answer::Unreadable, Answer::Accepted)
}

/// Decompresses `inner`, at most [`MAX_RESPONSE_BYTES`].
fn unpacked(inner: &[u8], encoding: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let mut reader: Box<dyn Read> = match encoding {
        Some(b"gzip") => Box::new(flate2::read::GzDecoder::new(inner)),
        Some(b"zstd") => Box::new(zstd::Decoder::new(inner).map_err(|error| error.to_string())?),
        _ => return Err("unknown compression".to_owned()),
    };
    let (mut out, most) = (Vec::new(), MAX_RESPONSE_BYTES as u64);
    reader.by_ref().take(most + 1).read_to_end(&mut out).map_err(|error| error.to_string())?;
    if out.len() > MAX_RESPONSE_BYTES { Err(format!("over {MAX_RESPONSE_BYTES} bytes")) } else { Ok(out) }
}

fn refusal(status: &Status) -> Answer {
    Answer::Rpc { code: status.code(), message: status.message().to_owned(), retry_info: retry_info(status.details()) }
}

/// An answer without a gRPC status, as from a proxy (gRPC, HTTP to gRPC status code mapping).
fn without_grpc_status(http_status: u16) -> Answer {
    let code = match http_status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Answer::Rpc {
        code,
        message: format!("http status {http_status} without a grpc status: no grpc server answered"),
        retry_info: None,
    }
}

/// Bytes of flag and length before a message.
const PREFIX: usize = 5;
const CONTENT: &str = "application/grpc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_message_is_accepted() {
        assert_eq!(accepted(&[0, 0, 0, 0, 0], None), Answer::Accepted(crate::otlp::retry::Partial::default()));
        for bad in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 1], &[0, 0, 0, 0, 1, 255]] {
            assert!(matches!(accepted(bad, None), Answer::Unreadable(_)), "{bad:?}");
        }
    }

    #[test]
    fn a_compressed_answer_is_decoded_and_bounded() {
        let framed = |packed: Vec<u8>| {
            let len = u32::try_from(packed.len()).expect("small").to_be_bytes();
            [&[1], &len[..], &packed].concat()
        };
        // partial_success { rejected: 3 }
        let response = [0x0a, 2, 8, 3];
        let (zstd, gzip) = (HeaderValue::from_static("zstd"), HeaderValue::from_static("gzip"));
        let packed = zstd::bulk::compress(&response, 3).expect("packed");
        let expected = crate::otlp::retry::Partial { rejected: 3, ..Default::default() };
        assert_eq!(accepted(&framed(packed.clone()), Some(&zstd)), Answer::Accepted(expected));
        assert!(matches!(accepted(&framed(packed.clone()), Some(&gzip)), Answer::Unreadable(_)));
        assert!(matches!(accepted(&framed(packed), None), Answer::Unreadable(_)));
        let bomb = zstd::bulk::compress(&vec![0; MAX_RESPONSE_BYTES * 2], 3).expect("packed");
        assert!(matches!(accepted(&framed(bomb), Some(&zstd)), Answer::Unreadable(_)));
    }
}
