//! `liveqos probe quic`: pings another node and prints the state of the path. Exit code: 0 the objective is met, 1 it
//! is missed or no ping was answered, 2 invalid settings.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use liveqos_core::model::Share;
use liveqos_core::node::DirectionLoss;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::config_file::ConfigFile;
use super::output::{FAILED, bad_config, fail, print};
use super::run::runtime;
use crate::config::Config;
use crate::peers::{Credentials, MAX_INTERVAL, MIN_INTERVAL, PeerConnection, PeerSettings};
use crate::platform::{clock, duration};

/// Which node to ping, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Name of one of [[paths.peers]], or host and port
    target: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Certificate of this node, PEM; overrides `paths.tls.cert`
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Private key of this node, PEM; overrides `paths.tls.key`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Authority that signs the nodes' certificates, PEM; overrides `paths.tls.ca`
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Expected name in the other node's certificate [default: the host]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Interval of pings, 20ms to 100ms; overrides `paths.interval`
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    interval: Option<Duration>,
    /// Stop after this many seconds [default: when interrupted]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    let is_valid = (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval);
    is_valid.then_some(interval).ok_or_else(|| "it must be between 20ms and 100ms".to_owned())
}

/// Pings until stopped.
pub(super) fn run(options: &Options) -> ExitCode {
    let config = match options.file.load() {
        Ok(config) => config,
        Err(error) => return bad_config(&error),
    };
    let mut tls = config.paths.tls.clone();
    for (file, given) in [(&mut tls.cert, &options.cert), (&mut tls.key, &options.key), (&mut tls.ca, &options.ca)] {
        if let Some(given) = given {
            file.clone_from(given);
        }
        if file.as_os_str().is_empty() {
            return bad_config(
                &"a certificate, its key and the authority are required: [paths.tls], or --cert, --key and --ca",
            );
        }
    }
    let mut peer = config.paths.peer(&options.target).cloned().unwrap_or_else(|| PeerSettings::at(&options.target));
    peer.server_name = options.server_name.clone().unwrap_or(peer.server_name);
    if peer.host_and_port().is_none() {
        return bad_config(&format!("{} is neither one of [[paths.peers]] nor a host and port", options.target));
    }
    let credentials = match Credentials::read(&tls) {
        Ok(credentials) => credentials,
        Err(error) => return bad_config(&error),
    };
    match runtime().and_then(|runtime| runtime.block_on(ping(options, &config, &peer, credentials))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => fail(&format!("{}: {error:#}", peer.address)),
    }
}

/// Pings; returns whether the objective was met.
async fn ping(options: &Options, config: &Config, peer: &PeerSettings, credentials: Credentials) -> Result<bool> {
    let mut connection = PeerConnection::open(peer, credentials.client, 0).await?;
    let interval = options.interval.unwrap_or(config.paths.interval);
    let began = Instant::now();
    let mut ticks = interval_at(began, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut lines = interval_at(began + WINDOW, WINDOW);
    let end = options.seconds.map(|seconds| began + Duration::from_secs(seconds));
    let (mut window, mut whole) = (PingResults::new()?, PingResults::new()?);
    loop {
        tokio::select! {
            received = connection.receive() => if let Some((rtt, ways)) = received? {
                window.add(rtt, ways);
                whole.add(rtt, ways);
            },
            _ = ticks.tick() => {
                connection.ping()?;
            }
            _ = lines.tick() => {
                print_line(&window, began, options.json, None);
                window = PingResults::new()?;
            }
            () = sleep_until(end.unwrap_or(began)), if end.is_some() => break,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("waiting for an interrupt")?;
                break;
            }
        }
    }
    let met = whole.is_met(config);
    print_line(&whole, began, options.json, Some(met));
    Ok(met)
}

/// The answers in a span of time.
struct PingResults {
    micros: Histogram<u64>,
    ways: DirectionLoss,
}

impl PingResults {
    fn new() -> Result<Self> {
        let micros = Histogram::new_with_bounds(1, HIGHEST_MICROS, 3)?;
        Ok(Self { micros, ways: DirectionLoss::default() })
    }

    fn add(&mut self, rtt: Duration, ways: DirectionLoss) {
        self.micros.saturating_record(u64::try_from(rtt.as_micros()).unwrap_or(HIGHEST_MICROS));
        self.ways.add(ways);
    }

    /// Median and shortest round trip in seconds.
    fn rtt(&self) -> Option<(f64, f64)> {
        let seconds = |micros: u64| micros as f64 / 1e6;
        (!self.micros.is_empty()).then(|| (seconds(self.micros.value_at_quantile(0.5)), seconds(self.micros.min())))
    }

    /// Whether half of the median round trip is within the latency objective, and loss within its limit in both
    /// directions.
    fn is_met(&self, config: &Config) -> bool {
        let objectives = &config.objectives;
        let in_time = self.rtt().is_some_and(|(median, _)| median / 2.0 <= objectives.latency.as_secs_f64());
        in_time && self.ways.worse().is_none_or(|ratio| ratio <= objectives.loss_ratio)
    }

    fn text(&self) -> String {
        let Some((median, least)) = self.rtt() else { return "no answer".to_owned() };
        let way = |share: Share| format!("{:.0} of {:.0}", share.part, share.whole);
        let DirectionLoss { out, back } = self.ways;
        format!(
            "round trip {:.2} ms (minimum {:.2} ms), lost out {}, back {}",
            median * 1e3,
            least * 1e3,
            way(out),
            way(back)
        )
    }

    fn json(&self) -> Value {
        let way = |share: Share| json!({ "lost": share.part as u64, "of": share.whole as u64 });
        let mut line = json!({ "echoes": self.micros.len(), "out": way(self.ways.out), "back": way(self.ways.back) });
        if let Some((median, least)) = self.rtt() {
            line["rtt_seconds"] = json!({ "median": median, "least": least });
        }
        line
    }
}

/// Prints a window, or at the end the totals and whether the objective is met.
fn print_line(results: &PingResults, began: Instant, as_json: bool, met: Option<bool>) {
    let seconds = began.elapsed().as_secs_f64();
    if as_json {
        let mut line = results.json();
        (line["at"], line["seconds"]) = (json!(clock::now().seconds()), json!((seconds * 10.0).round() / 10.0));
        if let Some(met) = met {
            (line["whole"], line["objective_met"]) = (json!(true), json!(met));
        }
        print(&format!("{line}\n"));
        return;
    }
    let verdict = match met {
        None => "",
        Some(true) => "  total; the objective is met",
        Some(false) => "  total; the objective is MISSED",
    };
    print(&format!("{seconds:6.1} s  {}{verdict}\n", results.text()));
}

/// Time from one line to the next.
const WINDOW: Duration = Duration::from_secs(5);
/// Longer round trips, beyond a minute, are recorded as this.
const HIGHEST_MICROS: u64 = 60_000_000;
