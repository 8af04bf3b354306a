//! What a class was, sent to a collector.

pub mod frame;
pub mod ids;
pub mod record;
pub mod resource;
pub mod spans;
