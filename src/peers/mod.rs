//! Network paths between nodes: pings other nodes over QUIC and echoes their pings.
//!
//! A ping is one datagram (RFC 9221); [`liveqos_core::node::ping`] has its form, [`liveqos_core::node::path_loss`]
//! counts what was lost.
//!
//! - **Decides** when a peer is pinged and connected to again, which nodes may ping this one and how fast, and what a
//!   failed connection is called. Both ends need a certificate of the configured authority.
//! - **In**: `[paths]` of the configuration, datagrams of other nodes.
//! - **Out**: [`PathTable`], read by the engine, the API and the metrics page; up or down of each peer to intake's
//!   [`crate::intake::SourceTable`]; shed counts.
//! - **May import** platform and intake; of core, metrics, model and node.

mod connection;
mod credentials;
mod fixed_window;
mod node_paths;
mod prober;
mod responder;
mod settings;
mod status;

pub(crate) use self::connection::PeerConnection;
pub use self::credentials::Credentials;
pub use self::node_paths::{Peers, try_once};
pub(crate) use self::settings::{MAX_INTERVAL, MIN_INTERVAL};
pub use self::settings::{NodeTlsSettings, PathSettings, PeerSettings};
pub use self::status::{PathStatus, PathTable};
