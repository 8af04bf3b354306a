//! The shell of liveqos: all input, output, tasks and wiring around the rules in `liveqos-core`.

pub mod intake;
