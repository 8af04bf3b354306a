//! The rules of liveqos.

pub mod time;
