//! The rules of liveqos: what a session is, what its numbers mean, when people are told. Pure: no clock, socket, file,
//! task or log.
//!
//! One direction of data, [`pipe::Pipe`]: a probe's [`observation::Observation`]s go into the [`registry::Registry`];
//! every 250 ms the [`judge::Judge`] looks at what was folded; every 5 s, on the wall-clock grid, the registry cuts one
//! [`sample::Sample`] a live session; the [`span_plan::SpanPlan`] makes the class's trace of samples and notices,
//! [`fleet::Fleet`] the node's running sums, and [`catalog`] says under which names they are exported.

pub mod access_log;
pub mod alert;
pub mod base;
pub mod cmcd;
pub mod connection;
pub mod media;
pub mod metrics;
pub mod model;
pub mod node;
pub mod pipeline;
pub mod recording;
pub mod session;
pub mod trace;
pub mod viewer;
