//! FACE

mod client;
mod endpoint;
mod grpc;
mod http;

pub(crate) use self::client::{StartError, Transport};
