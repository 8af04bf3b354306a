//! The shell of liveqos: all input, output, tasks and wiring.

pub mod demo;
