//! The program as a user runs it: exit codes, error messages, completions, the responses of the daemon.

use liveqos_testkit::daemon::{Daemon, file, liveqos_command, run_liveqos, text};
use liveqos_testkit::wait::until_blocking;

fn check(content: &str) -> (Option<i32>, String) {
    let file = file(content);
    let output = run_liveqos(&["check", "--config", file.path().to_str().expect("a plain path")]);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn the_printed_defaults_are_a_valid_configuration() {
    let defaults = run_liveqos(&["default-config"]);
    assert!(defaults.status.success());
    let (code, output) = check(&text(&defaults.stdout));
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn bad_configurations_are_refused_with_a_hint() {
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
        let (code, output) = check(content);
        assert_eq!(code, Some(2), "{content}: {output}");
        assert!(output.contains(hint), "{content}: {output}");
    }
}

#[test]
fn a_dead_source_fails_the_check_alone() {
    let (code, output) = check("[[sources]]\nkind = \"srs\"\nurl = \"http://127.0.0.1:9\"");
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("FAILED  source srs") && output.contains("ok      configuration"), "{output}");
    assert!(!output.contains('\u{1b}'), "colour only on terminals");
}

#[test]
fn variables_override_the_file_and_unknown_ones_are_refused() {
    let file = file("listen = \"127.0.0.1:1\"");
    let path = file.path().to_str().expect("a plain path");
    let run = |name, value| {
        liveqos_command(&["check", "--config", path]).env(name, value).output().expect("the program starts")
    };
    let output = run("LIVEQOS_LISTEN", "127.0.0.1:2");
    assert!(text(&output.stdout).contains("listening on 127.0.0.1:2"), "{output:?}");
    let output = run("LIVEQOS_LISTN", "127.0.0.1:2");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean LIVEQOS_LISTEN?"), "{output:?}");
    let output = run("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn completions_manual_and_schema_are_printed() {
    for (arguments, mark) in [
        (&["completions", "bash"][..], "_liveqos"),
        (&["completions", "zsh"], "#compdef liveqos"),
        (&["man"], ".TH liveqos 1"),
        (&["config-schema"], "https://json-schema.org/draft/2020-12/schema"),
        (&["--version"], concat!("liveqos ", env!("CARGO_PKG_VERSION"))),
    ] {
        let output = run_liveqos(arguments);
        assert!(output.status.success() && text(&output.stdout).contains(mark), "{arguments:?}: {output:?}");
    }
    assert_eq!(run_liveqos(&["prace"]).status.code(), Some(2), "clap's code for bad arguments");
}

#[test]
fn responses_and_errors_are_json() {
    let daemon = Daemon::start("");
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
    assert_eq!(daemon.ask("DELETE", "/api/v1/sessions/s1", "").0, 200, "an announcement can be withdrawn");
    assert_eq!(daemon.ask("PUT", "/api/v1/sessions/s1", &"x".repeat(100_000)).0, 413);
}

#[test]
fn it_is_ready_while_it_ticks_and_top_shows_it() {
    let daemon = Daemon::start("");
    until_blocking("the daemon to be ready", || (daemon.ask("GET", "/readyz", "").0 == 200).then_some(()));
    let output = run_liveqos(&["top", "--once", "--url", &daemon.url]);
    assert!(output.status.success() && text(&output.stdout).contains("COVERAGE"), "{output:?}");
    let output = run_liveqos(&["top", "--once", "--url", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is the daemon running there?"), "{output:?}");
}

#[test]
fn a_recorded_log_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/core/fixtures/cmcd");
    let (access, posts) = (format!("{folder}/h-rate1000.access.jsonl"), format!("{folder}/h-rate1000.posts.jsonl"));
    let output = run_liveqos(&["replay", "--json", &access, &posts]);
    assert!(output.status.success(), "{output:?}");
    let samples: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert!(samples.len() >= 13 && samples.iter().all(|sample| sample["session_id"] == "hls/class101"), "{samples:?}");
    let stalled: f64 = samples.iter().filter_map(|sample| sample["stutter_ratio"].as_f64()).sum::<f64>() * 5.0;
    assert!((11.0..12.5).contains(&stalled), "the page saw 11.8 s without its seeks, not {stalled}");
    assert!(text(&output.stderr).contains("140 lines"), "{output:?}");
    let file = file("[[logs]]\npath = \"x\"\nclass = \"content-id\"");
    let output = run_liveqos(&["replay", "--config", file.path().to_str().expect("a plain path"), &access]);
    assert!(text(&output.stdout).contains("  class101 ") && text(&output.stdout).contains(" %"), "{output:?}");
    assert_eq!(run_liveqos(&["replay", "/no/such.log"]).status.code(), Some(1));
    let (code, output) = check("[[logs]]\npath = \"x\"\nformat = \"$uri\"");
    assert!(code == Some(2) && output.contains("$time_local"), "{output}");
}
