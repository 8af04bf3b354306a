//! `liveqos top`: the node in a terminal, from its own API. A class takes one line; what was not measured is a dash.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use liveqos_core::model::{Sample, Share};
use serde_json::Value;

use super::output::{fail, print};
use super::run::runtime;
use super::style::{Colour, paint, stdout_supports_colour};

/// Options of `top`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// URL of the daemon
    #[arg(long, default_value = "http://127.0.0.1:9480", env = "LIVEQOS_URL")]
    url: String,
    /// Print the table once and exit
    #[arg(long)]
    once: bool,
}

/// Shows the node until interrupted.
pub(super) fn run(options: &Options) -> ExitCode {
    match runtime().and_then(|runtime| runtime.block_on(watch(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// One sample on one line.
#[must_use]
pub(super) fn line(sample: &Sample) -> String {
    let latency = sample.latency_p95_seconds().map(|latency| latency.value);
    figures([
        sample.bitrate().map(|bitrate| bitrate.value),
        sample.fps().map(|fps| fps.value),
        latency,
        sample.loss().map(|loss| Share::ratio(loss.value)),
        sample.viewers().map(|viewers| f64::from(viewers.value)),
        sample.stutter().map(|stutter| Share::ratio(stutter.value)),
        sample.coverage(),
    ])
}

async fn watch(options: &Options) -> Result<()> {
    crate::platform::tls::install();
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("building the http client")?;
    let base = options.url.trim_end_matches('/');
    let colour = stdout_supports_colour();
    loop {
        let sessions = get(&client, &format!("{base}/api/v1/sessions")).await?;
        let sources = get(&client, &format!("{base}/api/v1/sources")).await?;
        let alerts = get(&client, &format!("{base}/api/v1/alerts")).await?;
        let clear = if colour && !options.once { "\u{1b}[2J\u{1b}[H" } else { "" };
        print(&format!("{clear}{}", table(&sessions, &sources, &alerts, colour)));
        if options.once {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH_INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn get(client: &reqwest::Client, url: &str) -> Result<Value> {
    let mut response =
        client.get(url).send().await.with_context(|| format!("requesting {url}; is the daemon running there?"))?;
    ensure!(response.status().is_success(), "{url} answered with {}", response.status());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(body.len() + chunk.len() <= MAX_BODY, "{url} answered with more than {MAX_BODY} bytes");
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).with_context(|| format!("reading the response of {url}"))
}

fn table(sessions: &Value, sources: &Value, alerts: &Value, colour: bool) -> String {
    let mut out = format!("node {}{}\n", sessions["node"].as_str().unwrap_or("?"), room(&sources["capacity"]));
    let mut put = |text: String| writeln!(out, "{text}").unwrap_or_default();
    for source in sources["sources"].as_array().into_iter().flatten() {
        let state = source["state"].as_str().unwrap_or("unknown");
        let shade = if state == "up" { Colour::Green } else { Colour::Red };
        let error = source["last_error"]["message"].as_str().filter(|_| state != "up").unwrap_or_default();
        put(format!("  source {} {} {error}", source["name"].as_str().unwrap_or("?"), paint(state, shade, colour)));
    }
    for alert in alerts["alerts"].as_array().into_iter().flatten() {
        let text = format!(
            "  {} {}",
            alert["alertname"].as_str().unwrap_or("?"),
            alert["summary"].as_str().unwrap_or_default()
        );
        let shade = if alert["forecast"].is_null() { Colour::Red } else { Colour::Yellow };
        put(paint(text, shade, colour));
    }
    put(format!("{:24} {}", "CLASS", HEADS));
    for session in sessions["sessions"].as_array().into_iter().flatten() {
        let number = |key: &str| session[key].as_f64();
        let figures = figures([
            number("bitrate_bits_per_second"),
            number("fps"),
            number("latency_p95_seconds"),
            number("packet_loss_ratio"),
            number("viewers"),
            number("stutter_ratio"),
            number("coverage_ratio"),
        ]);
        let id: String = session["session_id"].as_str().unwrap_or("?").chars().take(24).collect();
        put(format!("{id:24} {figures}"));
    }
    out
}

/// The room that the node has for more viewers, if it is known.
fn room(capacity: &Value) -> String {
    let Some(room) = capacity["room"].as_u64() else {
        return String::new();
    };
    format!("  room for {room} more viewers, limited by {}", capacity["short"].as_str().unwrap_or("?"))
}

/// Bitrate, fps, latency, loss, viewers, stutter, coverage.
fn figures(values: [Option<f64>; 7]) -> String {
    let [bitrate, fps, latency, loss, viewers, stutter, coverage] = values;
    let show = |value: Option<f64>, scale: f64, digits: usize, unit: &str| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{:.digits$}{unit}", value * scale))
    };
    format!(
        "{:>12} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8}",
        show(bitrate, 1e-3, 0, " kbit/s"),
        show(fps, 1.0, 1, " fps"),
        show(latency, 1e3, 0, " ms"),
        show(loss, 100.0, 2, " %"),
        show(viewers, 1.0, 0, ""),
        show(stutter, 100.0, 2, " %"),
        show(coverage, 100.0, 0, " %"),
    )
}

const HEADS: &str = "     BITRATE      FPS  LATENCY95     LOSS  VIEWERS  STUTTER COVERAGE";
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest response that is read, in bytes.
const MAX_BODY: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn missing_values_are_dashes() {
        let sessions = json!({ "node": "n1", "sessions": [{ "session_id": "s1", "viewers": 3, "bitrate_bits_per_second": 1_500_000 }] });
        let sources = json!({ "sources": [{ "name": "srs", "state": "down", "last_error": { "message": "connection refused" } }] });
        let text = table(&sessions, &sources, &json!({ "alerts": [] }), false);
        insta::assert_snapshot!(text, @r"
        node n1
          source srs down connection refused
        CLASS                         BITRATE      FPS  LATENCY95     LOSS  VIEWERS  STUTTER COVERAGE
        s1                        1500 kbit/s        -         -        -        3        -        -
        ");
    }

    #[test]
    fn free_capacity_and_forecasts_are_shown() {
        let sources = json!({ "sources": [], "capacity": { "viewers": 120, "room": 340, "short": "processor" } });
        let alerts = json!({ "alerts": [
            { "alertname": "LiveLatencyHigh", "summary": "expected", "forecast": { "seconds": 60 } },
            { "alertname": "LiveStutterHigh", "summary": "4 %" },
        ] });
        let text = table(&json!({ "node": "n1", "sessions": [] }), &sources, &alerts, true);
        assert!(text.starts_with("node n1  room for 340 more viewers, limited by processor\n"), "{text}");
        let line = |name: &str| text.lines().find(|line| line.contains(name)).expect("a line").to_owned();
        assert!(line("LiveLatencyHigh").starts_with("\u{1b}[33m"), "a forecast is not shown as an alert: {text}");
        assert!(line("LiveStutterHigh").starts_with("\u{1b}[31m"), "{text}");
    }
}
