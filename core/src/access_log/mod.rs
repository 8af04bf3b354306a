//! FACE

pub mod class_path;
pub mod class_pattern;
pub mod connections;
mod event_posts;
pub mod field;
pub mod fold;
pub mod format;
mod layout_cache;
mod request_target;
pub mod syslog;
mod timestamp;
pub mod transport;
