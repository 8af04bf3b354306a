//! The two ways to a collector behind one call. Decides trust: the system's authorities, or those of the configured
//! file, and what the node shows of itself; refuses redirects and proxies, which would carry headers to somebody else.

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

/// Why export cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file of certificates or a key cannot be read.
    #[error("reading the otlp {what} in {path}: {why}")]
    File {
        /// What it should hold.
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
    Outbox {
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
    /// The clients of `signal` on its way, the preferred first, none of them connected yet. Needs a Tokio runtime.
    pub(crate) fn all(way: &SignalConfig<'_>, signal: Signal, target: &str) -> Result<Vec<Self>, StartError> {
        let headers = headers(way)?;
        let authorities = way.ca_file.map(authorities).transpose()?;
        let identity = way.identity.map(identity).transpose()?;
        let urls = way.urls.iter().map(|url| {
            let endpoint = Endpoint {
                signal,
                headers: headers.clone(),
                timeout: way.timeout,
                authorities: authorities.clone(),
                identity: identity.clone(),
                url: url.clone(),
            };
            let build = match way.protocol {
                Protocol::Grpc => Grpc::new(endpoint).map(|grpc| Self::Grpc(Box::new(grpc))),
                Protocol::HttpProtobuf => Http::new(endpoint).map(Self::Http),
            };
            let refuse = |why| StartError::Client { signal: signal.as_str(), target: target.to_owned(), why };
            build.map_err(refuse)
        });
        urls.collect()
    }

    /// Sends a request and waits for its answer, no longer than the configured timeout.
    pub(crate) async fn send(&mut self, payload: &Payload) -> Answer {
        let answer = self.start(payload).await;
        if matches!(answer, Answer::Silence(_)) {
            self.doubt();
        }
        answer
    }

    /// A request on its way, until its answer or the configured timeout. It goes on beside others of the same client.
    pub(crate) fn start(&mut self, payload: &Payload) -> Underway {
        match self {
            Self::Grpc(grpc) => Box::pin(grpc.start(payload)),
            Self::Http(http) => Box::pin(http.start(payload)),
        }
    }

    /// An answer stays away: the next request goes by a connection of its own.
    pub(crate) fn doubt(&mut self) {
        match self {
            Self::Grpc(grpc) => grpc.doubt(),
            // A connection with a request on it takes no other.
            Self::Http(_) => {}
        }
    }
}

/// A request on its way.
pub(crate) type Underway = Pin<Box<dyn Future<Output = Answer> + Send>>;

fn headers(way: &SignalConfig<'_>) -> Result<HeaderMap, StartError> {
    let pairs = way.headers.iter().map(|(name, secret)| {
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
        return Err(refused(path, what, "it holds no certificate".to_owned()));
    }
    Ok(pem)
}

fn identity((certificate, key): (&Path, &Path)) -> Result<(Vec<u8>, Vec<u8>), StartError> {
    let (what, secret) = ("client certificate", "client key");
    let (chain_pem, key_pem) = (read(certificate, what)?, read(key, secret)?);
    let found = CertificateDer::pem_slice_iter(&chain_pem).next();
    let found = found.map_or_else(|| Err("it holds no certificate".to_owned()), |one| one.map_err(|e| e.to_string()));
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
