//! The `liveqos` program: reads arguments, runs the command, gives the exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    liveqos::cli::run(liveqos::cli::Arguments::parse())
}
