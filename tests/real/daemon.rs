//! The daemon as a user runs it: the built program, a configuration file, HTTP.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::program::{Program, command};
use super::wait;

/// A running `liveqos run`.
pub(crate) struct Daemon {
    pub(crate) program: Program,
    pub(crate) url: String,
}

impl Daemon {
    /// Starts it with `config`, listening on `port`; done when it is ready.
    pub(crate) async fn start(folder: &Path, port: u16, config: &str) -> Self {
        Self::start_with(folder, port, config, &[]).await
    }

    /// The same with variables of the environment.
    pub(crate) async fn start_with(folder: &Path, port: u16, config: &str, variables: &[(&str, &str)]) -> Self {
        let program = std::env::var("LOAD_PROGRAM").unwrap_or_else(|_| LIVEQOS.to_owned());
        Self::start_command(command(&program).envs(variables.iter().copied()), folder, port, config).await
    }

    /// The same of a program that stands elsewhere.
    pub(crate) async fn start_command(command: &mut Command, folder: &Path, port: u16, config: &str) -> Self {
        command.args(["run", "--config"]).arg(write_config(folder, port, config));
        let program = Program::start("liveqos", command, folder, false);
        let mut daemon = Self { program, url: format!("http://127.0.0.1:{port}") };
        wait::until("the daemon", START, async || {
            assert!(daemon.program.is_running(), "the daemon ended at once");
            daemon.try_text("/readyz").await
        })
        .await;
        daemon
    }

    /// The answer to a GET, where there is a good one.
    pub(crate) async fn try_text(&self, path: &str) -> Option<String> {
        get(&format!("{}{path}", self.url)).await
    }

    pub(crate) async fn json(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.try_text(path).await?).ok()
    }

    /// A live class, where it is one.
    pub(crate) async fn session(&self, id: &str) -> Option<Value> {
        let all = self.json("/api/v1/sessions").await?;
        let all = all["sessions"].as_array()?;
        all.iter().find(|session| session["session_id"] == id).cloned()
    }

    pub(crate) async fn metrics(&self) -> String {
        self.try_text("/metrics").await.unwrap()
    }
}

/// Writes the file that the daemon is started or reloaded with.
pub(crate) fn write_config(folder: &Path, port: u16, config: &str) -> PathBuf {
    let file = folder.join("liveqos.toml");
    std::fs::write(&file, format!("listen = \"127.0.0.1:{port}\"\n{config}")).unwrap();
    file
}

/// The body of a good answer.
pub(crate) async fn get(url: &str) -> Option<String> {
    liveqos::platform::tls::install();
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().unwrap();
    let answer = client.get(url).send().await.ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}

/// The value of the first series of this name on a metrics page that has all these labels (`name="value"`).
pub(crate) fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut series = page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    let is_it =
        |text: &str| (text.is_empty() || text.starts_with('{')) && labels.iter().all(|label| text.contains(label));
    series.find(|(text, _)| is_it(text))?.1.parse().ok()
}

/// The program under test.
pub(crate) const LIVEQOS: &str = env!("CARGO_BIN_EXE_liveqos");
const START: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(5);
