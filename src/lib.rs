//! The shell of liveqos: all input, output, tasks and wiring around the rules of `liveqos-core`.
//!
//! [`app`] is the composition root and shows the pipe on one screen; [`intake`] is every way in, [`tick`] the engine
//! that owns the rules, [`sinks`], [`otlp`] and [`api`] every way out, [`cli`] the commands.

mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod engine;
mod http;
pub mod intake;
pub mod metrics;
pub mod notify;
pub mod otlp;
pub mod peers;
pub mod platform;
pub mod players;
pub mod storage;
