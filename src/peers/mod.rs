//! FACE

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
pub(crate) use self::settings::{LEAST_INTERVAL, MOST_INTERVAL};
pub use self::settings::{NodeTlsSettings, PathSettings, PeerSettings};
pub use self::status::{PathStatus, PathTable};
