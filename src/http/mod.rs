//! FACE

mod batching_runtime;
pub(crate) mod body;
pub(crate) mod error;
pub(crate) mod server;

pub(crate) use self::batching_runtime::BatchingRuntime;
pub(crate) use self::error::ApiError;
pub(crate) use self::server::{ListenerConfig, MAX_CONNECTIONS, PLAYERS_SHED};
