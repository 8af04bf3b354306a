//! The rules of liveqos: what a session is, what its numbers mean, when people are told. Pure: no clock, socket, file, task or log.
//!
//! One direction of data, [`pipe::Pipe`]: a probe's [`observation::Observation`]s go into the [`registry::Registry`]; every 250 ms the
//! [`judge::Judge`] looks at what was folded; every 5 s, on the wall-clock grid, the registry cuts one [`sample::Sample`] a live session;
//! the [`span_plan::SpanPlan`] makes the class's trace of samples and notices, [`fleet::Fleet`] the node's running sums, and
//! [`catalog`] says under which names they are exported.

pub mod answer_path;
pub mod attributes;
mod buffer_stall;
pub mod catalog;
pub mod checkpoint;
pub mod claim;
pub mod claim_fold;
pub mod class_path;
pub mod class_pattern;
mod class_table;
pub mod cmcd;
mod cmcd_read;
mod cmcd_text;
pub mod condition;
pub mod counter;
pub mod descriptor;
mod eight;
pub(crate) mod few;
pub mod fleet;
pub mod freeze;
pub mod judge;
pub mod latencies;
pub mod leg;
pub mod live;
pub mod log_field;
pub mod log_fold;
pub mod log_format;
mod log_layout;
mod log_time;
pub mod node;
pub mod notice;
pub mod observation;
pub mod pipe;
mod recent;
pub mod registry;
pub mod rtp;
pub mod sample;
pub mod segment;
pub mod server;
pub mod session;
pub mod sip_hash;
pub mod span;
pub mod span_plan;
pub mod syslog;
pub mod tcp;
pub mod tcp_fold;
pub mod tcp_join;
mod tcp_loss;
pub mod tcp_path;
pub mod time;
pub mod trace_parent;
pub mod trace_state;
pub mod trailing;
mod viewer;
pub mod viewer_fold;
pub mod viewer_sketch;
mod viewer_table;
pub mod wire;
