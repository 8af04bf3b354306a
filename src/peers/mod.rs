//! FACE

mod connection;
pub mod credentials;
mod fixed_window;
pub mod node_paths;
mod prober;
pub mod responder;
pub mod settings;
pub mod status;
