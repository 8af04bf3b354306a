//! The rules of liveqos.

pub mod descriptor;
pub mod notice;
pub mod observation;
pub mod sample;
pub mod session;
pub mod span;
pub mod time;
pub mod trace_parent;
