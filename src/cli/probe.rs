//! `liveqos probe`: one synthetic viewer, like ping for a class or a path. Decides which kind of target is asked; what
//! is measured of it stands in a file of its own.

use std::process::ExitCode;

use clap::Subcommand;

use super::probe_quic;

/// What to ask.
#[derive(Debug, Subcommand)]
pub(super) enum Target {
    /// The path to another node: round trip and loss on each way, a line every 5 s
    Quic(probe_quic::Options),
}

/// Asks until it is told to stop.
pub(super) fn run(target: &Target) -> ExitCode {
    match target {
        Target::Quic(options) => probe_quic::run(options),
    }
}
