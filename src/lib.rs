//! The shell of liveqos: all input, output, tasks and wiring. The rules are in `liveqos-core`, the adapters in `liveqos-probes`.

pub mod discover;
pub mod duration_text;
pub mod intake;
mod nearest;
pub mod tls;
