//! The composition root: builds, connects, starts, reloads and stops all stages of the daemon.
//!
//! - **Decides** what each stage is given, and in which order stages start and stop. `assembly.rs` shows the whole data
//!   path in one file.
//! - **In**: the configuration, from `cli`.
//! - **Out**: a running daemon.
//! - **May import** every stage but cli and demo.

mod assembly;
mod daemon;
mod node_identity;
mod outputs;
mod resume;

pub use self::assembly::App;
pub(crate) use self::node_identity::NodeIdentity;
