//! FACE

mod answer_timeout;
pub mod encode;
pub mod environment;
pub mod exporter;
mod failover;
mod payload;
pub mod queue;
pub mod record;
pub mod request;
pub mod resource;
pub mod retry;
pub mod sampling;
mod send_order;
mod sender;
pub mod settings;
pub mod signal_config;
pub mod stats;
pub mod transport;
