//! FACE

pub mod checkpoint;
pub mod descriptor;
pub mod environment;
pub mod group;
pub mod notice;
pub mod objectives;
pub mod observation;
pub mod sample;
pub mod session;
pub mod time;
pub mod trace_parent;
pub mod trace_state;
