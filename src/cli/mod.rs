//! FACE

pub mod arguments;
pub mod check;
mod check_logs;
mod check_paths;
pub mod demo;
pub mod probe;
pub mod probe_quic;
pub mod replay;
pub mod run;
pub mod style;
mod systemd;
pub mod top;
