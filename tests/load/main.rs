//! The whole daemon under the load of a busy edge and of an average node, as it runs: its processor time and memory,
//! and how long it takes from the first log line that shows a fault until a webhook is called, beside Prometheus and
//! Alertmanager in the same run. Prints; only what must hold on any machine is asserted. `cargo test --release --test
//! load -- --nocapture`; without optimisation it is a short smoke run. `LOAD_ONSETS`, `LOAD_VIEWERS`, `LOAD_STALL`
//! (`300-1300`, ms) and `LOAD_WARM` (seconds before the first fault) change the edge, `LOAD_PROGRAM` measures another
//! build.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]
#![expect(clippy::print_stdout, reason = "a measurement prints")]

mod audience;
mod average;
mod edge;
mod fault;
mod prometheus;
mod report;
mod usage;
mod webhook;
mod writer;

use std::path::PathBuf;

use liveqos_testkit::daemon::liveqos;

/// The build that is measured.
fn measured() -> PathBuf {
    std::env::var_os("LOAD_PROGRAM").map_or_else(liveqos, PathBuf::from)
}

/// A number from the environment, else `whole`, and `short` without optimisation.
fn asked(name: &str, whole: u64, short: u64) -> u64 {
    let asked = std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")));
    asked.unwrap_or(if cfg!(debug_assertions) { short } else { whole })
}
