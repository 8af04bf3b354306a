//! FACE

mod assembly;
pub mod daemon;
pub mod node_identity;
