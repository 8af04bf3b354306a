//! FACE

mod client;
mod grpc;
pub(crate) mod http;

pub(crate) use self::client::{StartError, Transport, chain};
