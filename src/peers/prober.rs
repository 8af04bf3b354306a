//! The task that pings one peer. After a failure it connects again with back-off and jitter.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::metrics::ShedReason;
use quinn::ClientConfig;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::connection::{PeerConnection, PeerError};
use super::settings::PeerSettings;
use super::status::PathEntry;
use crate::intake::SourceEntry;
use crate::platform::backoff::{backoff, jitter};
use crate::platform::{SelfMetrics, clock};

/// Pings one peer for the life of the daemon.
pub(super) struct Prober {
    pub(super) peer: PeerSettings,
    pub(super) interval: Duration,
    pub(super) client: Arc<ArcSwap<ClientConfig>>,
    pub(super) path: Arc<PathEntry>,
    pub(super) source: Arc<SourceEntry>,
    pub(super) meters: SelfMetrics,
}

impl Prober {
    /// Runs until aborted.
    pub(super) async fn run(self) {
        let (mut attempts, mut failures) = (0_u32, 0_u32);
        loop {
            let opened = PeerConnection::open(&self.peer, self.client.load().as_ref().clone(), attempts).await;
            attempts = attempts.wrapping_add(1);
            let error = match opened {
                Ok(mut connection) => self.ping(&mut connection, &mut failures).await,
                Err(error) => error,
            };
            if error.is_closed_by_peer() {
                self.path.closed();
            }
            tracing::debug!(peer = self.peer.name, reason = error.reason, "{error}");
            self.source.unanswered(clock::now(), error.reason, &error.message);
            tokio::time::sleep(backoff(FIRST_PAUSE, LONGEST_PAUSE, failures, jitter())).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Pings until the connection is lost; returns why.
    async fn ping(&self, connection: &mut PeerConnection, failures: &mut u32) -> PeerError {
        let start = Instant::now();
        let mut ticks = interval_at(start + self.interval.mul_f64(jitter()), self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut reports = interval_at(start + REPORT_INTERVAL, REPORT_INTERVAL);
        reports.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut echoes, mut unrecognized) = (0_u64, 0_u64);
        loop {
            tokio::select! {
                received = connection.receive() => match received {
                    Ok(Some((rtt, ways))) => {
                        self.path.echo(clock::now(), rtt, ways);
                        (echoes, *failures) = (echoes + 1, 0);
                    }
                    Ok(None) => unrecognized += 1,
                    Err(error) => return error,
                },
                _ = ticks.tick() => match connection.ping() {
                    Ok(sent) => self.meters.shed(ShedReason::PathPings, u64::from(!sent)),
                    Err(error) => return error,
                },
                _ = reports.tick() => {
                    self.meters.shed(ShedReason::PathUnrecognized, std::mem::take(&mut unrecognized));
                    match std::mem::take(&mut echoes) {
                        0 => self.source.unanswered(clock::now(), "silence", "pings are sent and no echo comes back"),
                        _ => self.source.answered(clock::now()),
                    }
                }
            }
        }
    }
}

/// Connects, pings until an echo comes back, and disconnects; returns the round trip.
///
/// # Errors
/// [`PeerError`].
pub(super) async fn try_once(peer: &PeerSettings, client: ClientConfig) -> Result<Duration, PeerError> {
    let mut connection = PeerConnection::open(peer, client, 0).await?;
    let mut ticks = tokio::time::interval(TRY_INTERVAL);
    for _ in 0..TRIES {
        tokio::select! {
            received = connection.receive() => if let Some((rtt, _)) = received? {
                return Ok(rtt);
            },
            _ = ticks.tick() => {
                connection.ping()?;
            }
        }
    }
    Err(PeerError {
        reason: "silence",
        message: format!("it accepts the connection and answers none of {TRIES} pings"),
    })
}

/// How often the peer's state as a source is updated.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The first pause before connecting again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Pings of [`try_once`], and the interval between them.
const TRIES: u32 = 20;
const TRY_INTERVAL: Duration = Duration::from_millis(100);
