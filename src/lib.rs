//! The shell of liveqos: all input, output, tasks and wiring around the rules of `liveqos-core`.
//!
//! [`app`] is the composition root and shows the pipe on one screen; [`intake`] is every way in, [`beat`] the heart that owns the rules,
//! [`sinks`], [`otlp`] and [`api`] every way out, [`cli`] the commands.

pub mod api;
pub mod app;
pub mod beacon;
pub mod beat;
pub mod cli;
pub mod clock;
pub mod cmcd;
pub mod config;
pub mod demo;
pub mod discover;
pub mod disk;
pub mod duration_text;
pub mod ended;
pub mod hall;
pub mod http_server;
pub mod ingest;
pub mod intake;
pub mod journal;
pub mod limit;
pub mod log;
pub mod meters;
pub mod nearest;
pub mod notify;
pub mod otlp;
pub mod peers;
pub mod place;
pub mod recording;
pub mod rfc3339;
pub mod roster;
pub mod sampling;
pub mod sinks;
pub mod snapshot;
pub mod spool;
pub mod state;
pub mod tls;
pub mod token;
