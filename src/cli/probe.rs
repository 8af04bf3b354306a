//! `liveqos probe`: a synthetic viewer, like ping for a path. Each kind of target has a file of its own.

use std::process::ExitCode;

use clap::Subcommand;

use super::probe_quic;

/// What to probe.
#[derive(Debug, Subcommand)]
pub(super) enum Target {
    /// Ping another node over QUIC: round trip and loss in each direction, a line every 5 s
    Quic(probe_quic::Options),
}

/// Probes until stopped.
pub(super) fn run(target: &Target) -> ExitCode {
    match target {
        Target::Quic(options) => probe_quic::run(options),
    }
}
