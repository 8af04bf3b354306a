//! OTLP/HTTP with binary protobuf. Only status 200 with a body that decodes is a success.

use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::endpoint::{Endpoint, MAX_RESPONSE_BYTES, USER_AGENT};
use crate::otlp::payload::Payload;
use crate::otlp::retry::{Answer, read_response};
use crate::platform::error_chain::chain;
use crate::platform::retry_after::retry_after;

/// A client of one export path.
pub(crate) struct Http {
    client: Client,
    url: Url,
}

impl Http {
    /// The client of `target`, not connected yet.
    ///
    /// # Errors
    /// A message where it cannot be built.
    pub(crate) fn new(target: Endpoint) -> Result<Self, String> {
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(target.headers)
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(target.timeout)
            .timeout(target.timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1);
        if let Some((certificate, key)) = target.identity {
            // The client expects both in one PEM text.
            let pem = [certificate, vec![b'\n'], key].concat();
            builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(|error| chain(&error))?);
        }
        if let Some(pem) = target.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| chain(&error))?;
            builder = builder.tls_certs_only(authorities);
        } else if target.url.scheme() == "http" {
            // The system's authorities are not needed, and where there are none, as in a container, the build would
            // fail.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { client: builder.build().map_err(|error| chain(&error))?, url: target.url })
    }

    /// Starts a request.
    pub(crate) fn start(&self, payload: &Payload) -> impl Future<Output = Answer> + Send + use<> {
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf");
        if let Some(encoding) = payload.encoding() {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        let request = request.body(payload.bytes.clone());
        async move {
            match request.send().await {
                Ok(response) if response.status() == StatusCode::OK => accepted(response).await,
                Ok(response) => {
                    Answer::Http { status: response.status().as_u16(), retry_after: retry_after(response.headers()) }
                }
                Err(error) => Answer::Silence(chain(&error.without_url())),
            }
        }
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Http({}{})", self.url.host_str().unwrap_or_default(), self.url.path())
    }
}

async fn accepted(mut response: Response) -> Answer {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_RESPONSE_BYTES => {
                return Answer::Unreadable(format!("over {MAX_RESPONSE_BYTES} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Answer::Unreadable(chain(&error.without_url())),
        }
    }
    read_response(&body).map_or_else(|error| Answer::Unreadable(error.to_string()), Answer::Accepted)
}

/// How long an unused connection is kept open: two intervals of metrics.
const IDLE: Duration = Duration::from_secs(30);
