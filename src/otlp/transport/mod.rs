//! FACE

pub(crate) mod client;
mod grpc;
pub(crate) mod http;
