//! Programs started by tests: each in a process group and with log files of its own. Decides that none outlives its
//! test: the group is killed when the guard is dropped, and ended by the kernel when the test itself dies.

use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait;

/// A running program.
pub(crate) struct Program {
    pub(crate) child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts `command`, made by [`command`]; its standard error goes to `NAME.log` in `folder`, its output too unless
    /// it is piped.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path, piped: bool) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let out = if piped { Stdio::piped() } else { file.try_clone().unwrap().into() };
        command.stdin(Stdio::null()).stdout(out).stderr(file).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let name = name.to_owned();
        Self { child, name, log }
    }

    /// Sends a signal (`TERM`, `HUP`, `KILL`, ...) to the program alone.
    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, &self.child.id().to_string());
    }

    /// How it ended; it must within `within`.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::until(&what, within, async || self.child.try_wait().unwrap()).await
    }

    /// Asks it to stop and waits until it did.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended(Duration::from_secs(20)).await
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            eprintln!("--- {} said at last:\n{}", self.name, tail.join("\n"));
        }
        // The group may outlive its first process.
        kill("KILL", &format!("-{}", self.child.id()));
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// A command that the kernel ends when the test's thread does.
#[expect(clippy::disallowed_methods, reason = "tests start the real servers")]
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", program]);
    command
}

/// Runs a command to its end: whether it succeeded, its exit code, and all it said.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(output.status.signal(), None, "{}", String::from_utf8_lossy(&said));
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn kill(signal: &str, whom: &str) {
    // Who is gone already needs no signal.
    run(command("kill").args([&format!("-{signal}"), "--", whom]));
}

const TAIL: usize = 40;
