//! The stall figures of liveqos for a class: the sums of its samples, from the daemon that follows the log and from a
//! replay of the same log.

use std::path::Path;

use liveqos_testkit::daemon::{Daemon, liveqos};
use liveqos_testkit::program::{command, run};
use serde_json::Value;

/// Sums over a class's samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Seconds stalled.
    pub(crate) stalled: f64,
    /// Seconds played or stalled.
    pub(crate) exposure: f64,
    /// Samples with them.
    pub(crate) samples: usize,
}

impl Measured {
    /// The daemon's samples of the class `id`.
    pub(crate) async fn by_daemon(daemon: &Daemon, id: &str) -> Self {
        let answer = daemon.json(&format!("/api/v1/sessions/{}/samples", id.replace('/', "%2F"))).await;
        let samples = answer.map(|mut answer| answer["samples"].take());
        Self::sum(samples.as_ref().and_then(Value::as_array).into_iter().flatten())
    }

    /// The same by a replay of the log.
    pub(crate) fn by_replay(config: &Path, log: &Path, id: &str) -> Self {
        let (code, output) = run(command(liveqos()).args(["replay", "--json", "--config"]).arg(config).arg(log));
        assert_eq!(code, Some(0), "{output}");
        let samples: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self::sum(samples.iter().filter(|sample: &&Value| sample["session_id"] == id))
    }

    /// Stalled over exposure, in percent.
    pub(crate) fn percent(&self) -> f64 {
        if self.exposure > 0.0 { 100.0 * self.stalled / self.exposure } else { f64::NAN }
    }

    fn sum<'a>(samples: impl Iterator<Item = &'a Value>) -> Self {
        samples.fold(Self::default(), |sum, sample| {
            let Some(exposure) = sample["watch_seconds"].as_f64() else { return sum };
            let stalled = sample["stutter_seconds"].as_f64().unwrap_or_default();
            Self { stalled: sum.stalled + stalled, exposure: sum.exposure + exposure, samples: sum.samples + 1 }
        })
    }
}
