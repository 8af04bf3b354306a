//! Programs started by tests: each in a process group and with a log file of its own. Decides that none outlives its
//! test: the group is killed when the guard is dropped, and ended by the kernel when the test itself dies.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait;

/// A running program.
#[derive(Debug)]
pub struct Program {
    /// Its process.
    pub child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts `command`, made by [`command`]; its standard error goes to `NAME.log` in `folder`, its output too unless
    /// it is piped.
    pub fn start(name: &str, command: &mut Command, folder: &Path, piped: bool) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let out = if piped { Stdio::piped() } else { file.try_clone().unwrap().into() };
        command.stdin(Stdio::null()).stdout(out).stderr(file).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let name = name.to_owned();
        Self { child, name, log }
    }

    /// Sends a signal (`TERM`, `HUP`, `KILL`, ...) to the program alone.
    pub fn signal(&self, signal: &str) {
        kill(signal, &self.child.id().to_string());
    }

    /// Waits until it has ended, `within` at most, and returns how.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::until(&what, within, async || self.child.try_wait().unwrap()).await
    }

    /// Asks it to stop (SIGTERM), waits until it has, and returns how it ended.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended(STOP).await
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// All that is in its log, by earlier programs of the same name and folder too.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            eprintln!("--- the last lines of {}:\n{}", self.name, tail.join("\n"));
        }
        // The group may outlive its first process.
        kill("KILL", &format!("-{}", self.child.id()));
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// A command that the kernel ends when the test's thread does.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = host_command("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command
}

/// Runs a command to its end: its exit code, and its output with its errors behind it.
pub fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.signal(), None, "{text}");
    (output.status.code(), text)
}

fn kill(signal: &str, process: &str) {
    // A process that is gone already needs no signal.
    run(command("kill").args([&format!("-{signal}"), "--", process]));
}

#[expect(clippy::disallowed_methods, reason = "tests start the real programs")]
pub(crate) fn host_command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// How long a program may take to stop.
const STOP: Duration = Duration::from_mins(1);
/// Lines of a log that a failed test prints.
const TAIL: usize = 40;
