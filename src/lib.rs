//! The shell of liveqos: all input and output around the rules of `liveqos-core`.

pub mod otlp;
