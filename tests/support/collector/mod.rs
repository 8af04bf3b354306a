//! An OpenTelemetry collector on loopback, over gRPC and OTLP/HTTP, for tests of export.
//!
//! **Decides** that it responds by a script, keeps all requests, and lets a test wait for them.

mod grpc;
mod http;
mod messages;
mod script;
mod server;

pub use self::messages::{Body, Received, Reply};
pub use self::server::Collector;
