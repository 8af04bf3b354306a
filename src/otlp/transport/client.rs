//! The client of one signal's endpoint, gRPC or HTTP. Trusts the system's authorities or those of the configured file.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::endpoint::Endpoint;
use super::grpc::Grpc;
use super::http::Http;
use crate::otlp::payload::Payload;
use crate::otlp::record::Signal;
use crate::otlp::retry::Answer;
use crate::otlp::settings::{Protocol, SettingsError};
use crate::otlp::signal_config::SignalConfig;
use crate::platform::error_chain::chain;

/// Why the export cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file of certificates or a key cannot be used.
    #[error("reading the otlp {what} in {path}: {why}")]
    File {
        /// What it should contain.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A client cannot be built.
    #[error("building the otlp client of {signal} for {target}: {why}")]
    Client {
        /// The signal.
        signal: &'static str,
        /// The target.
        target: String,
        /// What is wrong.
        why: String,
    },
    /// A queue cannot be opened.
    #[error("opening the otlp queue of {target}: {why}")]
    Queue {
        /// The target.
        target: String,
        /// What is wrong.
        why: String,
    },
}

/// A client of one signal's endpoint.
#[derive(Debug)]
pub(crate) enum Transport {
    Grpc(Box<Grpc>),
    Http(Http),
}

impl Transport {
    /// The clients of `signal`, the preferred first, not connected yet. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] for an invalid header or file, or a client that cannot be built.
    pub(crate) fn all(config: &SignalConfig<'_>, signal: Signal, target: &str) -> Result<Vec<Self>, StartError> {
        let headers = headers(config)?;
        let authorities = config.ca_file.map(authorities).transpose()?;
        let identity = config.identity.map(identity).transpose()?;
        let urls = config.urls.iter().map(|url| {
            let endpoint = Endpoint {
                signal,
                headers: headers.clone(),
                timeout: config.timeout,
                authorities: authorities.clone(),
                identity: identity.clone(),
                url: url.clone(),
            };
            let build = match config.protocol {
                Protocol::Grpc => Grpc::new(endpoint).map(|grpc| Self::Grpc(Box::new(grpc))),
                Protocol::HttpProtobuf => Http::new(endpoint).map(Self::Http),
            };
            let refuse = |why| StartError::Client { signal: signal.as_str(), target: target.to_owned(), why };
            build.map_err(refuse)
        });
        urls.collect()
    }

    /// Sends a request and waits for its answer, at most for the configured time-out.
    pub(crate) async fn send(&mut self, payload: &Payload) -> Answer {
        let answer = self.start(payload).await;
        if matches!(answer, Answer::Silence(_)) {
            self.reconnect();
        }
        answer
    }

    /// Starts a request, which ends with its answer or at the configured time-out. Several may be in flight.
    pub(crate) fn start(&mut self, payload: &Payload) -> InFlight {
        match self {
            Self::Grpc(grpc) => Box::pin(grpc.start(payload)),
            Self::Http(http) => Box::pin(http.start(payload)),
        }
    }

    /// Makes the next request use a new connection, because an answer is missing.
    pub(crate) fn reconnect(&mut self) {
        match self {
            Self::Grpc(grpc) => grpc.reconnect(),
            // A connection with a request in flight takes no other.
            Self::Http(_) => {}
        }
    }
}

/// A request in flight.
pub(crate) type InFlight = Pin<Box<dyn Future<Output = Answer> + Send>>;

fn headers(config: &SignalConfig<'_>) -> Result<HeaderMap, StartError> {
    let pairs = config.headers.iter().map(|(name, secret)| {
        let refuse = || SettingsError::Header("otlp".to_owned(), name.clone());
        let mut value = HeaderValue::try_from(secret.expose()).map_err(|_| refuse())?;
        value.set_sensitive(true);
        Ok((HeaderName::try_from(name).map_err(|_| refuse())?, value))
    });
    pairs.collect()
}

fn authorities(path: &Path) -> Result<Vec<u8>, StartError> {
    let what = "authorities";
    let pem = read(path, what)?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| refused(path, what, chain(&error)))?;
    if found.is_empty() {
        return Err(refused(path, what, "it contains no certificate".to_owned()));
    }
    Ok(pem)
}

fn identity((certificate, key): (&Path, &Path)) -> Result<(Vec<u8>, Vec<u8>), StartError> {
    let (what, secret) = ("client certificate", "client key");
    let (chain_pem, key_pem) = (read(certificate, what)?, read(key, secret)?);
    let found = CertificateDer::pem_slice_iter(&chain_pem).next();
    let found =
        found.map_or_else(|| Err("it contains no certificate".to_owned()), |one| one.map_err(|e| e.to_string()));
    found.map_err(|why| refused(certificate, what, why))?;
    PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| refused(key, secret, error.to_string()))?;
    Ok((chain_pem, key_pem))
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|error| refused(path, what, error.to_string()))
}

fn refused(path: &Path, what: &'static str, why: String) -> StartError {
    StartError::File { what, path: path.to_owned(), why }
}
