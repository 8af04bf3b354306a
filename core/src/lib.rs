//! The rules of liveqos.

pub mod counter;
pub mod descriptor;
pub mod latencies;
pub mod leg;
pub mod live;
pub mod notice;
pub mod observation;
pub mod registry;
pub mod sample;
pub mod server;
pub mod session;
pub mod span;
pub mod time;
pub mod trace_parent;
