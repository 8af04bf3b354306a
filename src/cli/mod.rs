//! The commands of the `liveqos` program.
//!
//! **Decides** what each command prints and its exit code: 0 success, 1 something failed, 2 invalid configuration or
//! arguments. The work itself is done in other stages.
//!
//! **In**: arguments, environment variables, signals; for `top` the daemon's API, for `replay` logs and recordings.
//!
//! **Out**: text or JSON on standard output, errors on standard error, notifications to systemd.
//!
//! **May import** every stage; only `main` imports it.

mod arguments;
mod check;
mod check_logs;
mod check_paths;
mod config_file;
mod demo;
mod output;
mod probe;
mod probe_quic;
mod replay;
mod run;
mod style;
mod systemd;
mod top;

pub use self::arguments::{Arguments, run};
