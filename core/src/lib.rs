//! The rules of liveqos.

pub mod attributes;
pub mod catalog;
pub mod condition;
pub mod counter;
pub mod descriptor;
pub mod fleet;
pub mod judge;
pub mod latencies;
pub mod leg;
pub mod live;
pub mod notice;
pub mod observation;
pub mod registry;
pub mod sample;
pub mod segment;
pub mod server;
pub mod session;
pub mod span;
pub mod span_plan;
pub mod time;
pub mod trace_parent;
pub mod trailing;
