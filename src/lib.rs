//! The shell of liveqos: all input, output, tasks and wiring around the rules of `liveqos-core`.
//!
//! Data flows through the stages in this order; `src/app/assembly.rs` shows how they are connected:
//!
//! - in: [`intake`] (media servers, access logs, kernel, node), [`players`] (beacons, CMCD events), [`peers`] (paths to
//!   other nodes);
//! - [`engine`], which owns the rules and ticks every 250 ms;
//! - out: [`otlp`], [`notify`], [`storage`], [`metrics`] and the API.
//!
//! [`platform`] and the HTTP server are used by all of them; [`config`] reads the settings of each; [`app`] builds and
//! connects them; [`cli`] has the commands, and [`demo`] is the class of `liveqos demo`.

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
