//! The daemon as a user runs it: the built program, a configuration file, HTTP. Decides that it listens on a port that
//! the kernel chose, which it logs; asked in two ways, by tests with a runtime (`async`) and without.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::time::Duration;

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use super::ports::LOOPBACK;
use super::program::{Program, command, host_command};
use super::wait::{PATIENCE, until, until_blocking};

/// A running `liveqos run`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// Its process and log.
    pub program: Program,
    /// Where it listens.
    pub address: SocketAddr,
    /// The same as an URL, without a slash at its end.
    pub url: String,
    /// Where its own lines begin in the log.
    log_start: usize,
    _folder: Option<TempDir>,
}

/// How a daemon is started; `Launch::new(config).start()`.
#[derive(Debug)]
pub struct Launch<'a> {
    config: &'a str,
    folder: Option<&'a Path>,
    listen: SocketAddr,
    program: PathBuf,
    flags: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
}

impl<'a> Launch<'a> {
    /// With this configuration, in a folder of its own.
    #[must_use]
    pub fn new(config: &'a str) -> Self {
        Self { config, folder: None, listen: LOOPBACK, program: liveqos(), flags: &[], variables: &[] }
    }

    /// Configuration (`liveqos.toml`) and log (`liveqos.log`) go to `folder`; a later daemon appends to the log.
    #[must_use]
    pub fn folder(self, folder: &'a Path) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// Listens here; else on a port that the kernel chooses.
    #[must_use]
    pub fn listen(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// Another build than the one under test.
    #[must_use]
    pub fn program(self, program: &Path) -> Self {
        Self { program: program.to_owned(), ..self }
    }

    /// Further flags of `liveqos run`.
    #[must_use]
    pub fn flags(self, flags: &'a [&'a str]) -> Self {
        Self { flags, ..self }
    }

    /// Variables of its environment.
    #[must_use]
    pub fn variables(self, variables: &'a [(&'a str, &'a str)]) -> Self {
        Self { variables, ..self }
    }

    /// Starts it; returns when it listens.
    #[must_use]
    pub fn start(self) -> Daemon {
        let mut started = self.spawn();
        let address = until_blocking("the daemon to listen", || started.address());
        started.daemon(address)
    }

    /// Starts it; returns when it is ready (`/readyz`).
    pub async fn ready(self) -> Daemon {
        let mut started = self.spawn();
        let address = until("the daemon to listen", PATIENCE, async || started.address()).await;
        let mut daemon = started.daemon(address);
        until("the daemon to be ready", PATIENCE, async || {
            assert!(daemon.program.is_running(), "the daemon ended at once");
            daemon.try_text("/readyz").await
        })
        .await;
        daemon
    }

    fn spawn(self) -> Started {
        let own = self.folder.is_none().then(|| tempfile::tempdir().unwrap());
        let folder = own.as_ref().map_or_else(|| self.folder.unwrap(), TempDir::path);
        let config = write_config(folder, self.config);
        let mut command = command(self.program);
        without_settings(&mut command);
        command.args(["run", "--listen", &self.listen.to_string(), "--config"]).arg(config).args(self.flags);
        command.env("LIVEQOS_LOG_FORMAT", "json").envs(self.variables.iter().copied());
        let log = folder.join("liveqos.log");
        let log_start = std::fs::metadata(log).map_or(0, |log| log.len() as usize);
        Started { program: Program::start("liveqos", &mut command, folder, false), log_start, folder: own }
    }
}

/// A daemon that may not listen yet.
struct Started {
    program: Program,
    log_start: usize,
    folder: Option<TempDir>,
}

impl Started {
    fn address(&mut self) -> Option<SocketAddr> {
        let running = self.program.is_running();
        let address = logged(&self.program, self.log_start, "address");
        assert!(address.is_some() || running, "the daemon ended at once: {}", self.program.log());
        address?.parse().ok()
    }

    fn daemon(self, address: SocketAddr) -> Daemon {
        let Self { program, log_start, folder } = self;
        Daemon { program, address, url: format!("http://{address}"), log_start, _folder: folder }
    }
}

/// The first value of a field in the lines that a program has logged as JSON, those before `start` left out.
fn logged(program: &Program, start: usize, field: &str) -> Option<String> {
    let log = program.log();
    let mut lines = log.get(start..)?.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.find_map(|line| line["fields"][field].as_str().map(str::to_owned))
}

impl Daemon {
    /// Starts it with this configuration and without looking for media servers; returns when it listens.
    #[must_use]
    pub fn start(config: &str) -> Self {
        Launch::new(config).variables(NO_DISCOVERY).start()
    }

    /// Starts it in `folder` with this configuration; returns when it is ready.
    pub async fn start_in(folder: &Path, config: &str) -> Self {
        Launch::new(config).folder(folder).ready().await
    }

    /// An address that it logged: `ingest`, where players alone are served, or `paths`, where it answers pings.
    #[must_use]
    pub fn logged_address(&self, field: &str) -> SocketAddr {
        let address = until_blocking(field, || logged(&self.program, self.log_start, field));
        address.parse().unwrap()
    }

    /// What it has logged as errors, and its panics.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        let log = self.program.log();
        let own = log.get(self.log_start..).unwrap_or_default();
        let failed = own.lines().filter(|line| line.contains("panicked") || line.contains("\"ERROR\""));
        failed.map(str::to_owned).collect()
    }

    /// Status and body of the response to one request.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, _, body) = self.ask_with(method, path, "", body);
        (status, body)
    }

    /// Status, lower-case head and body of the response to a request with these further header lines
    /// (`name: value\r\n`).
    #[must_use]
    pub fn ask_with(&self, method: &str, path: &str, lines: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads the request");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).expect("it responds");
        let response = text(&response);
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    /// The JSON response to a GET.
    #[must_use]
    pub fn ask_json(&self, path: &str) -> Value {
        let (_, body) = self.ask("GET", path, "");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// `liveqos_shed_total` of this reason; 0 where there is no such series.
    #[must_use]
    pub fn shed(&self, reason: &str) -> f64 {
        let page = self.ask("GET", "/metrics", "").1;
        value(&page, "liveqos_shed_total", &[&format!("reason=\"{reason}\"")]).unwrap_or_default()
    }

    /// The body of the response to a GET, where it succeeded.
    pub async fn try_text(&self, path: &str) -> Option<String> {
        get(&format!("{}{path}", self.url)).await
    }

    /// The same as JSON.
    pub async fn json(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.try_text(path).await?).ok()
    }

    /// A live class, where it is one.
    pub async fn session(&self, id: &str) -> Option<Value> {
        let all = self.json("/api/v1/sessions").await?;
        let all = all["sessions"].as_array()?;
        all.iter().find(|session| session["session_id"] == id).cloned()
    }

    /// How many classes are live.
    pub async fn live(&self) -> Option<usize> {
        Some(self.json("/api/v1/sessions").await?["sessions"].as_array()?.len())
    }

    /// The metrics page.
    pub async fn metrics(&self) -> String {
        self.try_text("/metrics").await.unwrap()
    }
}

/// The built program under test: cargo names it (since 1.94 also at run time) when it runs an integration test.
#[must_use]
pub fn liveqos() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_liveqos").expect("cargo test or cargo bench runs this").into()
}

/// `liveqos` with these arguments, without the settings of this process's environment.
#[must_use]
pub fn liveqos_command(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = host_command(liveqos());
    without_settings(&mut command);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs `liveqos` with these arguments to its end.
#[must_use]
pub fn run_liveqos(arguments: &[impl AsRef<OsStr>]) -> Output {
    liveqos_command(arguments).output().expect("the program starts")
}

/// Takes variables away that would change the program's settings.
fn without_settings(command: &mut Command) {
    let settings = |name: &str| name.starts_with("LIVEQOS_") || name.starts_with("OTEL_");
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| settings(name)) {
        command.env_remove(name);
    }
}

/// Writes the file that a daemon of this folder is started or reloaded with; returns its path.
#[expect(clippy::must_use_candidate, reason = "a reload needs the file, not its path")]
pub fn write_config(folder: &Path, config: &str) -> PathBuf {
    let file = folder.join("liveqos.toml");
    std::fs::write(&file, config).unwrap();
    file
}

/// A temporary file with this content.
#[must_use]
pub fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(content.as_bytes()).expect("room on the disk");
    file
}

/// Bytes as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The body of the response to a GET, where it succeeded.
pub async fn get(url: &str) -> Option<String> {
    let response = http_client().get(url).timeout(RESPONSE).send().await.ok()?;
    response.error_for_status().ok()?.text().await.ok()
}

/// A client that uses no proxy.
#[must_use]
pub fn http_client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    // The library of liveqos may have installed one: then it stays.
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap_or_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The value of the first series of this name on a metrics page that has all these labels (`name="value"`).
#[must_use]
pub fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut series = page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    let is_it =
        |text: &str| (text.is_empty() || text.starts_with('{')) && labels.iter().all(|label| text.contains(label));
    series.find(|(text, _)| is_it(text))?.1.parse().ok()
}

/// For [`Launch::variables`]: the daemon does not look for media servers of this host.
pub const NO_DISCOVERY: &[(&str, &str)] = &[("LIVEQOS_DISCOVER", "false")];
const RESPONSE: Duration = Duration::from_secs(5);
