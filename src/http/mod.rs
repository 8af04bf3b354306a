//! FACE

pub mod batching_runtime;
pub mod body;
pub mod error;
pub mod server;
