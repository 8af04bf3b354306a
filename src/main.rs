//! The `liveqos` program: parses arguments, runs the command, returns its exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    liveqos::cli::run(liveqos::cli::Arguments::parse())
}
