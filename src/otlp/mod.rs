//! What a class was, sent to a collector.

pub mod frame;
pub mod ids;
pub mod record;
pub mod resource;
pub mod spans;
pub mod metrics;
pub mod outbox;
pub mod retry;
pub mod stats;
pub mod environment;
pub mod http_date;
pub mod settings;
