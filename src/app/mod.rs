//! FACE

mod assembly;
mod daemon;
mod node_identity;

pub use self::daemon::App;
pub(crate) use self::node_identity::NodeIdentity;
