//! Clients of an OTLP endpoint: gRPC and HTTP behind one interface.
//!
//! - **Decides** TLS trust and client identity, request headers, time-outs, and what of an answer is read. Redirects
//!   and proxies are not followed: they would pass the headers to somebody else.
//! - **In**: a [`super::signal_config::SignalConfig`] and encoded, compressed requests.
//! - **Out**: requests to a collector, an answer for [`super::retry`].
//! - **May import** platform and its parent.

mod client;
mod endpoint;
mod grpc;
mod http;

pub(crate) use self::client::{StartError, Transport};
