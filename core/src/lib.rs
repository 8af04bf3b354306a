//! The rules of liveqos.

pub mod counter;
pub mod descriptor;
pub mod latencies;
pub mod notice;
pub mod observation;
pub mod sample;
pub mod session;
pub mod span;
pub mod time;
pub mod trace_parent;
