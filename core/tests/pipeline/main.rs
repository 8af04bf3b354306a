//! Whole classes through the pipe under a clock moved by hand: what people are told, what the trace gains, what the
//! registry keeps.

mod accounts;
mod judge;
mod registry;
mod spans;
mod stage;
