//! The rules of liveqos.

pub mod freeze;
pub mod rtp;
pub mod time;
