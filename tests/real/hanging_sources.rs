//! Twenty sources that accept every connection and never respond, beside a healthy one: neither it nor the tick is
//! delayed.

use std::net::SocketAddr;
use std::time::Duration;

use liveqos_core::metrics::SKEW_BOUNDS;
use liveqos_testkit::daemon::{Daemon, liveqos, value};
use liveqos_testkit::program::{command, run};
use liveqos_testkit::stat_server::{StatServer, hang};
use liveqos_testkit::wait::{alone, until};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn hanging_sources() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let (good, silent) = (StatServer::one("class103").await, hang().await);
    let config = config(&good.url, silent);
    let daemon = Daemon::start_in(folder.path(), &config).await;
    are_down(&daemon).await;

    let before = Skew::of(&daemon.metrics().await);
    let rounds = rounds(&daemon).await;
    let file = folder.path().join("liveqos.toml");
    let check = tokio::task::spawn_blocking(move || run(command(liveqos()).args(["check", "--config"]).arg(file)));
    tokio::time::sleep(MEASURED).await;
    let skew = Skew::of(&daemon.metrics().await).since(&before);
    eprintln!("{} ticks, {:.4} of them within 50 ms, p99 {:.4} s", skew.count, skew.punctual / skew.count, skew.p99());
    assert!(skew.count >= MEASURED.as_secs_f64() * 4.0 * 0.9, "four ticks a second: {}", skew.count);
    assert!(skew.punctual / skew.count >= 0.99, "late ticks: {:?}", skew.buckets);

    let asked = self::rounds(&daemon).await - rounds;
    assert!(asked >= MEASURED.as_secs() * 9 / 10, "the good source was polled {asked} times only");
    let session = daemon.session("live/class103").await.unwrap();
    assert_eq!(session["viewers"], 3);
    let off = session["bitrate_bits_per_second"].as_f64().unwrap() / 1_600_000.0 - 1.0;
    assert!(off.abs() < 0.03, "the good source's bitrate is {off:+.3} off");

    let (code, output) = check.await.unwrap();
    let of = |mark: &str| output.lines().filter(|line| line.starts_with(mark) && line.contains("source ")).count();
    assert_eq!((code, of("FAILED"), of("ok")), (Some(1), SILENT, 1), "{output}");
    assert!(output.lines().filter(|line| line.starts_with("FAILED")).all(|line| line.contains("silent-")), "{output}");
    assert!(daemon.program.stop().await.success());
}

fn config(good: &str, silent: SocketAddr) -> String {
    let source = |kind: &str, name: &str, url: &str| {
        format!("[[sources]]\nkind = \"{kind}\"\nname = \"{name}\"\nurl = \"{url}\"\ninterval = \"1s\"\n")
    };
    let silent = (0..SILENT).map(|number| {
        let kind = ["srs", "nginx-rtmp"][number % 2];
        source(kind, &format!("silent-{number}"), &format!("http://{silent}"))
    });
    source("nginx-rtmp", "good", good) + &silent.collect::<String>()
}

/// Waits until the silent sources are down, and only they.
async fn are_down(daemon: &Daemon) {
    let down = until("twenty sources down", Duration::from_secs(20), async || {
        let mut sources = daemon.json("/api/v1/sources").await?;
        let Value::Array(sources) = sources["sources"].take() else {
            return None;
        };
        let (down, up): (Vec<Value>, Vec<Value>) = sources.into_iter().partition(|source| source["state"] == "down");
        (down.len() == SILENT && up.len() == 1).then_some(down)
    });
    for source in down.await {
        assert_eq!(source["last_error"]["reason"], "timeout", "{source}");
    }
}

/// The histogram of how late ticks were.
struct Skew {
    buckets: Vec<(f64, f64)>,
    count: f64,
    punctual: f64,
}

impl Skew {
    fn of(page: &str) -> Self {
        let name = "liveqos_tick_skew_seconds_bucket";
        let buckets = SKEW_BOUNDS.iter().map(|bound| {
            let count = value(page, name, &[&format!("le=\"{bound}\"")]);
            (*bound, count.unwrap())
        });
        Self {
            buckets: buckets.collect(),
            count: value(page, "liveqos_tick_skew_seconds_count", &[]).unwrap(),
            punctual: value(page, name, &["le=\"0.05\""]).unwrap(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        let buckets = self.buckets.iter().zip(&before.buckets);
        Self {
            buckets: buckets.map(|((bound, now), (_, was))| (*bound, now - was)).collect(),
            count: self.count - before.count,
            punctual: self.punctual - before.punctual,
        }
    }

    /// The 99th percentile, evenly between two bounds, as Prometheus takes it.
    fn p99(&self) -> f64 {
        let rank = self.count * 0.99;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *count >= rank {
                return lower + (bound - lower) * (rank - below) / (count - below);
            }
            (lower, below) = (*bound, *count);
        }
        f64::INFINITY
    }
}

async fn rounds(daemon: &Daemon) -> u64 {
    let sources = daemon.json("/api/v1/sources").await.unwrap();
    let sources = sources["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == "good").unwrap()["rounds"].as_u64().unwrap()
}

const SILENT: usize = 20;
const MEASURED: Duration = Duration::from_secs(35);
