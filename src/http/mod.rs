//! The HTTP/1.1 server: bounded connections, plain or over TLS, for any service.
//!
//! - **Decides** how many connections a listener may have, how long a client may take for its TLS handshake, the head
//!   and the body of a request, which connections a runtime of their own serves, and how an error looks in JSON.
//! - **In**: TCP connections; the service to run, from `players` and `api`.
//! - **Out**: requests with their whole body, to that service; counts of what was refused.
//! - **May import** platform; of core, base and metrics.

mod batching_runtime;
pub(crate) mod body;
mod error;
mod request;
pub(crate) mod server;
mod shutdown;

pub(crate) use self::batching_runtime::BatchingRuntime;
pub(crate) use self::error::{ApiError, method_not_allowed, not_found, retry_later};
pub(crate) use self::request::{argument, bearer, decoded};
pub(crate) use self::server::{DispatchRule, HttpService, ListenerConfig, MAX_CONNECTIONS};
