//! Alerts evaluated on a labelled corpus: simulated classes of five to fifty thousand viewers, healthy and faulty. The
//! long tables of the same simulation are made by `cargo run -p liveqos-core --release --example alert_tables`.

#![expect(clippy::print_stdout, reason = "the tests print what they count")]

mod causes;
mod disturbed;
mod node_events;
mod simulation;
mod stutter;
