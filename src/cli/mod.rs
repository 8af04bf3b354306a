//! FACE

mod arguments;
mod check;
mod check_logs;
mod check_paths;
mod demo;
mod probe;
mod probe_quic;
mod replay;
mod run;
mod style;
mod systemd;
mod top;

pub use self::arguments::{Arguments, run};
