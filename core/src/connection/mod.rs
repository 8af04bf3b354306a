//! FACE

pub mod attribution;
pub mod delivery;
pub mod join;
mod loss;
pub mod response_delay;
pub mod summary;
pub mod tcp_info;
