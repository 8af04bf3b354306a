//! Whole classes through the pipeline under a clock moved by hand: notices, spans, and the classes of the registry.

mod alerts;
mod arbitrary_input;
#[path = "../support/random.rs"]
mod random;
mod registry;
mod spans;
mod stage;
