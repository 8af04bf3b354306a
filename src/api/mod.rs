//! The HTTP API, the page and `/metrics` of a node.
//!
//! **Decides** routes and responses, and what the platform may announce of a class.
//! **In:** requests through `http`; the snapshot of `engine`, the state of sources, paths and storage.
//! **Out:** responses; registrations and ends of classes as commands, to `engine`; hooks of media servers, to `intake`.
//! **May import:** `platform`, `http`, `storage`, `intake`, `peers`, `engine`, `metrics`, `players`.

mod metrics;
mod routes;
mod sessions;
mod state;

pub(crate) use self::metrics::MetricsPage;
pub(crate) use self::routes::router;
pub(crate) use self::state::ApiState;
