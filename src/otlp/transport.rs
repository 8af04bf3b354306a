//! The two ways to a collector behind one call. Decides trust: the system's authorities, or those of the configured file;
//! refuses redirects and proxies, which would carry headers to somebody else.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::grpc::Grpc;
use super::http::Http;
use super::payload::Payload;
use super::record::Signal;
use super::retry::Answer;
use super::settings::{OtlpSettings, Protocol, SettingsError};

/// Why export cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The file of authorities cannot be read.
    #[error("reading the otlp authorities in {path}: {why}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A client cannot be built.
    #[error("building the otlp client of {signal}: {why}")]
    Client {
        /// The signal.
        signal: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// A client of one signal's endpoint.
#[derive(Debug)]
pub(super) enum Transport {
    Grpc(Box<Grpc>),
    Http(Http),
}

impl Transport {
    /// The client of `signal`, not yet connected; `None` where the signal is off. Needs a Tokio runtime.
    pub(super) fn of(settings: &OtlpSettings, signal: Signal) -> Result<Option<Self>, StartError> {
        let Some(url) = settings.url(signal)? else {
            return Ok(None);
        };
        let target = Target {
            signal,
            headers: headers(settings)?,
            timeout: settings.timeout()?,
            authorities: authorities(settings)?,
            url,
        };
        let build = match settings.protocol {
            Protocol::Grpc => Grpc::new(target).map(|grpc| Self::Grpc(Box::new(grpc))),
            Protocol::HttpProtobuf => Http::new(target).map(Self::Http),
        };
        build.map(Some).map_err(|why| StartError::Client { signal: signal.as_str(), why })
    }

    /// Sends a request and waits for its answer, no longer than the configured timeout.
    pub(super) async fn send(&mut self, payload: &Payload) -> Answer {
        match self {
            Self::Grpc(grpc) => grpc.send(payload).await,
            Self::Http(http) => http.send(payload).await,
        }
    }
}

/// Where a client sends to.
pub(super) struct Target {
    /// What it sends.
    pub(super) signal: Signal,
    /// To where; under HTTP with its path.
    pub(super) url: reqwest::Url,
    /// Configured headers, marked as sensitive.
    pub(super) headers: HeaderMap,
    /// Longest wait for an answer.
    pub(super) timeout: Duration,
    /// PEM of the authorities to trust instead of the system's.
    pub(super) authorities: Option<Vec<u8>>,
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn headers(settings: &OtlpSettings) -> Result<HeaderMap, StartError> {
    settings.check()?;
    let pairs = settings.headers.iter().map(|(name, secret)| {
        let refuse = || SettingsError::Header(name.clone());
        let mut value = HeaderValue::try_from(secret.expose()).map_err(|_| refuse())?;
        value.set_sensitive(true);
        Ok((HeaderName::try_from(name).map_err(|_| refuse())?, value))
    });
    pairs.collect()
}

fn authorities(settings: &OtlpSettings) -> Result<Option<Vec<u8>>, StartError> {
    let Some(path) = &settings.ca_file else {
        return Ok(None);
    };
    let refuse = |why| StartError::Authorities { path: path.clone(), why };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| refuse(chain(&error)))?;
    if found.is_empty() {
        return Err(refuse("it holds no certificate".to_owned()));
    }
    Ok(Some(pem))
}

/// Longest answer read: a partial success is a number and a line of text.
pub(super) const MAX_RESPONSE_BYTES: usize = 256 << 10;
/// How the exporter names itself.
pub(super) const USER_AGENT: &str = concat!("liveqos/", env!("CARGO_PKG_VERSION"));
