//! The HTTP API, the page and `/metrics` of a node.
//!
//! - **Decides** routes and responses, and what the platform may announce of a class.
//! - **In**: requests through `http`; the snapshot of the engine; the state of sources, paths and storage.
//! - **Out**: responses; registrations and ends of classes, to the engine; hooks of media servers, to intake; ended
//!   classes, to players.
//! - **May import** platform, http, storage, intake, peers, engine, metrics and players; of core, model and metrics.

mod metrics;
mod routes;
mod sessions;
mod state;

pub(crate) use self::metrics::MetricsPage;
pub(crate) use self::routes::router;
pub(crate) use self::state::ApiState;
