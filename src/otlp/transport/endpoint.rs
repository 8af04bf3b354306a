//! What both clients are built from: the endpoint of one signal, and the bounds and name that they share.

use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::otlp::record::Signal;

/// The endpoint of a client.
pub(crate) struct Endpoint {
    /// The signal sent to it.
    pub(crate) signal: Signal,
    /// Its URL; under HTTP with the path.
    pub(crate) url: reqwest::Url,
    /// Configured headers, marked as sensitive.
    pub(crate) headers: HeaderMap,
    /// Longest wait for an answer.
    pub(crate) timeout: Duration,
    /// PEM of the authorities to trust instead of the system's.
    pub(crate) authorities: Option<Vec<u8>>,
    /// PEM of this node's certificate and of its private key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Longest answer that is read, in bytes: a partial success is a number and a line of text.
pub(crate) const MAX_RESPONSE_BYTES: usize = 256 << 10;
/// The exporter's `User-Agent`.
pub(crate) const USER_AGENT: &str = concat!("liveqos/", env!("CARGO_PKG_VERSION"));
