//! FACE

pub mod freeze;
pub mod rtp;
