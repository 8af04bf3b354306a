//! FACE

pub mod credentials;
pub mod http_client;
pub mod poller;
pub mod round;
pub mod schedule;
