//! FACE

pub mod event_queue;
pub mod follower;
pub mod settings;
pub mod syslog_socket;
pub mod tail;
