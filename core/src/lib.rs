//! The rules of liveqos.

pub mod descriptor;
pub mod observation;
pub mod session;
pub mod time;
pub mod trace_parent;
