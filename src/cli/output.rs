//! What commands print, and their exit codes: 0 success, 1 something failed, 2 invalid configuration or arguments.

use std::io::Write as _;
use std::process::ExitCode;

/// Prints to standard output. A closed pipe (`| head`) is not a failure.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints a failure to standard error.
pub(super) fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    print_error(error);
    ExitCode::from(FAILED)
}

/// Prints an invalid configuration to standard error.
pub(super) fn bad_config(error: &dyn std::fmt::Display) -> ExitCode {
    print_error(error);
    ExitCode::from(BAD_CONFIG)
}

fn print_error(error: &dyn std::fmt::Display) {
    // With standard error closed there is nowhere to report this.
    writeln!(std::io::stderr(), "liveqos: {error}").unwrap_or_default();
}

/// Prints progress or a summary to standard error, beside results on standard output.
pub(super) fn print_progress(text: &str) {
    // With standard error closed there is nowhere to report this.
    std::io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

/// Exit code when something failed.
pub(super) const FAILED: u8 = 1;
/// Exit code for an invalid configuration; clap uses the same for invalid arguments.
const BAD_CONFIG: u8 = 2;
