//! `liveqos probe quic`: pings another node and prints what the path is like. Decides the exit code: 0 the objective is
//! met, 1 it is missed or nothing came back, 2 bad settings.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use liveqos_core::model::Share;
use liveqos_core::node::DirectionLoss;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::arguments::{ConfigFile, FAILED, bad_config, fail, print};
use super::run::runtime;
use crate::config::Config;
use crate::peers::{Credentials, MAX_INTERVAL, MIN_INTERVAL, PeerConnection, PeerSettings};
use crate::platform::{clock, duration};

/// Whom to ping, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Name of one of [[paths.peers]], or host and port
    target: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Certificate of this node, PEM, over `paths.tls.cert` of the file
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key, PEM, over `paths.tls.key`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The authority that signs nodes, PEM, over `paths.tls.ca`
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name that the other node's certificate must have [default: the host]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// From one ping to the next, 20ms to 100ms, over `paths.interval`
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    interval: Option<Duration>,
    /// Stop after so many seconds [default: when interrupted]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    let fits = (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval);
    fits.then_some(interval).ok_or_else(|| "it must lie between 20ms and 100ms".to_owned())
}

/// Pings until it is told to stop.
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
                &"a certificate, its key and the authority are needed: [paths.tls], or --cert, --key and --ca",
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

/// Pings; gives whether the objective was met.
async fn ping(options: &Options, config: &Config, peer: &PeerSettings, credentials: Credentials) -> Result<bool> {
    let mut connection = PeerConnection::open(peer, credentials.client, 0).await?;
    let every = options.interval.unwrap_or(config.paths.interval);
    let began = Instant::now();
    let mut ticks = interval_at(began, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut lines = interval_at(began + WINDOW, WINDOW);
    let end = options.seconds.map(|seconds| began + Duration::from_secs(seconds));
    let (mut window, mut whole) = (Seen::new()?, Seen::new()?);
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
                tell(&window, began, options.json, None);
                window = Seen::new()?;
            }
            () = sleep_until(end.unwrap_or(began)), if end.is_some() => break,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("waiting for an interrupt")?;
                break;
            }
        }
    }
    let met = whole.is_met(config);
    tell(&whole, began, options.json, Some(met));
    Ok(met)
}

/// What came back in a span of time.
struct Seen {
    micros: Histogram<u64>,
    ways: DirectionLoss,
}

impl Seen {
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

    /// Half of the round trip within the latency, and loss within its limit, on both ways.
    fn is_met(&self, config: &Config) -> bool {
        let objectives = &config.objectives;
        let in_time = self.rtt().is_some_and(|(median, _)| median / 2.0 <= objectives.latency.as_secs_f64());
        in_time && self.ways.worse().is_none_or(|ratio| ratio <= objectives.loss_ratio)
    }

    fn text(&self) -> String {
        let Some((median, least)) = self.rtt() else { return "nothing came back".to_owned() };
        let way = |share: Share| format!("{:.0} of {:.0}", share.part, share.whole);
        let DirectionLoss { out, back } = self.ways;
        format!(
            "round trip {:.2} ms (least {:.2} ms), lost there {}, back {}",
            median * 1e3,
            least * 1e3,
            way(out),
            way(back)
        )
    }

    fn json(&self) -> Value {
        let way = |share: Share| json!({ "lost": share.part as u64, "of": share.whole as u64 });
        let mut told = json!({ "echoes": self.micros.len(), "out": way(self.ways.out), "back": way(self.ways.back) });
        if let Some((median, least)) = self.rtt() {
            told["rtt_seconds"] = json!({ "median": median, "least": least });
        }
        told
    }
}

/// Prints a window, or at the end the whole and whether the objective is met.
fn tell(seen: &Seen, began: Instant, as_json: bool, met: Option<bool>) {
    let seconds = began.elapsed().as_secs_f64();
    if as_json {
        let mut line = seen.json();
        (line["at"], line["seconds"]) = (json!(clock::now().seconds()), json!((seconds * 10.0).round() / 10.0));
        if let Some(met) = met {
            (line["whole"], line["objective_met"]) = (json!(true), json!(met));
        }
        print(&format!("{line}\n"));
        return;
    }
    let verdict = match met {
        None => "",
        Some(true) => "  in all; the objective is met",
        Some(false) => "  in all; the objective is MISSED",
    };
    print(&format!("{seconds:6.1} s  {}{verdict}\n", seen.text()));
}

/// From one line to the next.
const WINDOW: Duration = Duration::from_secs(5);
/// Round trips beyond a minute count as one.
const HIGHEST_MICROS: u64 = 60_000_000;
