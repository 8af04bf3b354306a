//! The program as a user calls it: exit codes, errors, completions, the daemon on a free port.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "these tests run the program itself")]
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_liveqos"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    program(arguments).output().expect("the program starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(content.as_bytes()).expect("room on the disk");
    file
}

fn check(content: &str) -> (Option<i32>, String) {
    let file = file(content);
    let output = run(&["check", "--config", file.path().to_str().expect("a plain path")]);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn the_printed_defaults_are_a_good_configuration() {
    let defaults = run(&["default-config"]);
    assert!(defaults.status.success());
    let (code, said) = check(&text(&defaults.stdout));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn bad_configurations_are_refused_with_what_to_do() {
    for (content, hint) in [
        ("listn = \"x\"", "did you mean \"listen\""),
        ("[sessions]\nmaxx = 1", "unknown key \"sessions.maxx\"; did you mean \"max\""),
        ("[[sources]]\nkind = \"srss\"", "did you mean \"srs\""),
        ("[[sources]]\nkind = \"srs\"\nmax_strams = 1", "did you mean \"max_streams\""),
        ("[objectives]\nlatency = \"200\"", "has no unit"),
        ("[objectives]\nstutter_ratio = 1.5", "between 0 and 1"),
        ("listen = \"nowhere\"", "127.0.0.1:9480"),
        ("[otlp]\nendpoint = \"collector\"", "http://"),
        ("[", "line 1"),
    ] {
        let (code, said) = check(content);
        assert_eq!(code, Some(2), "{content}: {said}");
        assert!(said.contains(hint), "{content}: {said}");
    }
}

#[test]
fn a_dead_source_fails_the_check_alone() {
    let (code, said) = check("[[sources]]\nkind = \"srs\"\nurl = \"http://127.0.0.1:9\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAILED  source srs") && said.contains("ok      configuration"), "{said}");
    assert!(!said.contains('\u{1b}'), "colour only on terminals");
}

#[test]
fn variables_win_over_the_file_and_unknown_ones_are_refused() {
    let file = file("listen = \"127.0.0.1:1\"");
    let path = file.path().to_str().expect("a plain path");
    let run =
        |name, value| program(&["check", "--config", path]).env(name, value).output().expect("the program starts");
    let output = run("LIVEQOS_LISTEN", "127.0.0.1:2");
    assert!(text(&output.stdout).contains("listening on 127.0.0.1:2"), "{output:?}");
    let output = run("LIVEQOS_LISTN", "127.0.0.1:2");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean LIVEQOS_LISTEN?"), "{output:?}");
    let output = run("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn packagers_get_what_they_want() {
    for (arguments, mark) in [
        (&["completions", "bash"][..], "_liveqos"),
        (&["completions", "zsh"], "#compdef liveqos"),
        (&["man"], ".TH liveqos 1"),
        (&["config-schema"], "https://json-schema.org/draft/2020-12/schema"),
        (&["--version"], concat!("liveqos ", env!("CARGO_PKG_VERSION"))),
    ] {
        let output = run(arguments);
        assert!(output.status.success() && text(&output.stdout).contains(mark), "{arguments:?}: {output:?}");
    }
    assert_eq!(run(&["prace"]).status.code(), Some(2), "clap's code for bad arguments");
}

/// A running daemon, stopped at the end of the test.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    /// Where it listens.
    pub(crate) address: String,
    /// Where players alone are listened to.
    pub(crate) ingest: Option<String>,
    _config: tempfile::NamedTempFile,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it with this configuration.
    pub(crate) fn start_with(config: &str) -> Self {
        Self::start_with_flags(config, &[])
    }

    /// Starts it with this configuration and these flags.
    pub(crate) fn start_with_flags(config: &str, flags: &[&str]) -> Self {
        let config_has_ingest = config.contains("[ingest]\nlisten");
        let config = file(config);
        let path = config.path().to_str().expect("a plain path");
        let arguments = ["run", "--listen", "127.0.0.1:0", "--config", path];
        let mut command = program(&[&arguments, flags].concat());
        command.env("LIVEQOS_DISCOVER", "false").env("LIVEQOS_LOG_FORMAT", "json").stderr(Stdio::piped());
        let mut child = command.spawn().expect("the daemon starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
        let line = said
            .find_map(|line| line.ok().filter(|line| line.contains("\"address\"")))
            .expect("it says where it listens");
        let fields = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            line["fields"].clone()
        };
        let address = fields(&line)["address"].as_str().expect("an address").to_owned();
        let ingest = config_has_ingest.then(|| {
            let line = said.next().and_then(Result::ok).expect("it says where players report");
            fields(&line)["ingest"].as_str().expect("an address").to_owned()
        });
        // A part of it that fell over shows in the test's output.
        let fell = |line: &String| line.contains("panicked") || line.contains("ERROR");
        std::thread::spawn(move || {
            said.map_while(Result::ok).filter(fell).for_each(|line| eprintln!("daemon: {line}"));
        });
        Self { child, address, ingest, _config: config }
    }

    /// Status line and body of one answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, _, body) = self.ask_with(method, path, "", body);
        (status, body)
    }

    /// Status, head and body of one answer to a request with these further header lines (`name: value\r\n`).
    pub(crate) fn ask_with(&self, method: &str, path: &str, lines: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        let answer = text(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (status, head.to_ascii_lowercase(), body.to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().ok();
    }
}

#[test]
fn the_daemon_answers_and_refuses_in_json() {
    let daemon = Daemon::start();
    for (method, path, status, mark) in [
        ("GET", "/livez", 200, "ok"),
        ("GET", "/", 200, "<title>liveqos</title>"),
        ("GET", "/metrics", 200, "liveqos_build_info"),
        ("GET", "/api/v1/sessions", 200, "\"sessions\":[]"),
        ("GET", "/api/v1/alerts", 200, "\"alerts\":[]"),
        ("GET", "/api/v1/sources", 200, "\"sources\":[]"),
        ("GET", "/api/v1/sessions/none", 404, "unknown_session"),
        ("GET", "/api/v1/sessions/none/samples", 404, "unknown_session"),
        ("DELETE", "/api/v1/sessions/none", 404, "unknown_session"),
        ("GET", "/nothing", 404, "\"code\":\"not_found\""),
        ("POST", "/api/v1/alerts", 405, "method_not_allowed"),
        ("POST", "/v1/hooks/nobody", 404, "error"),
        ("POST", "/v1/beacon", 404, "\"code\":\"closed\""),
    ] {
        let (code, body) = daemon.ask(method, path, "");
        assert_eq!(code, status, "{method} {path}: {body}");
        assert!(body.contains(mark), "{method} {path}: {body}");
    }
    let (code, body) = daemon.ask("PUT", "/api/v1/sessions/s1", r#"{"scenario":"party"}"#);
    assert!(code == 400 && body.contains("\"field\":\"scenario\""), "{body}");
    let (code, body) = daemon.ask("PUT", "/api/v1/sessions/s1", r#"{"course_id":"c9","stream":"live/a"}"#);
    assert!(code == 200 && body.contains("\"registered\":true"), "{body}");
    assert_eq!(daemon.ask("DELETE", "/api/v1/sessions/s1", "").0, 200, "an announcement can be taken back");
    assert_eq!(daemon.ask("PUT", "/api/v1/sessions/s1", &"x".repeat(100_000)).0, 413);
}

#[test]
fn it_is_ready_while_it_beats_and_top_shows_it() {
    let daemon = Daemon::start();
    let since = Instant::now();
    while daemon.ask("GET", "/readyz", "").0 != 200 {
        assert!(since.elapsed() < Duration::from_secs(20), "never ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = run(&["top", "--once", "--url", &format!("http://{}", daemon.address)]);
    assert!(output.status.success() && text(&output.stdout).contains("COVERAGE"), "{output:?}");
    let output = run(&["top", "--once", "--url", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("does the daemon run there?"), "{output:?}");
}

#[test]
fn a_recorded_log_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/core/fixtures/cmcd");
    let (access, posts) = (format!("{folder}/h-rate1000.access.jsonl"), format!("{folder}/h-rate1000.posts.jsonl"));
    let output = run(&["replay", "--json", &access, &posts]);
    assert!(output.status.success(), "{output:?}");
    let samples: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert!(samples.len() >= 13 && samples.iter().all(|sample| sample["session_id"] == "hls/class101"), "{samples:?}");
    let stalled: f64 = samples.iter().filter_map(|sample| sample["stutter_ratio"].as_f64()).sum::<f64>() * 5.0;
    assert!((11.0..12.5).contains(&stalled), "the page saw 11.8 s without its seeks, told {stalled}");
    assert!(text(&output.stderr).contains("140 lines"), "{output:?}");
    let file = file("[[logs]]\npath = \"x\"\nclass = \"content-id\"");
    let output = run(&["replay", "--config", file.path().to_str().expect("a plain path"), &access]);
    assert!(text(&output.stdout).contains("  class101 ") && text(&output.stdout).contains(" %"), "{output:?}");
    assert_eq!(run(&["replay", "/no/such.log"]).status.code(), Some(1));
    let (code, said) = check("[[logs]]\npath = \"x\"\nformat = \"$uri\"");
    assert!(code == Some(2) && said.contains("$time_local"), "{said}");
}
