//! The task that pings one peer. Decides when it connects again; refuses to hurry: what fails waits longer each time,
//! no two nodes alike.

use liveqos_core::metrics::ShedReason;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::ClientConfig;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::connection::{PeerConnection, Trouble};
use super::settings::PeerSettings;
use super::status::PathEntry;
use crate::intake::SourceEntry;
use crate::platform::backoff::{backoff, jitter};
use crate::platform::{SelfMetrics, clock};

/// Pings one peer for as long as the daemon lives.
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
        let (mut attempts, mut refused) = (0_u32, 0_u32);
        loop {
            let opened = PeerConnection::open(&self.peer, self.client.load().as_ref().clone(), attempts).await;
            attempts = attempts.wrapping_add(1);
            let trouble = match opened {
                Ok(mut line) => self.ping(&mut line, &mut refused).await,
                Err(trouble) => trouble,
            };
            if trouble.is_leave() {
                self.path.part();
            }
            tracing::debug!(peer = self.peer.name, reason = trouble.reason, "{trouble}");
            self.source.unanswered(clock::now(), trouble.reason, &trouble.message);
            tokio::time::sleep(backoff(FIRST_PAUSE, LONGEST_PAUSE, refused, jitter())).await;
            refused = refused.saturating_add(1);
        }
    }

    /// Pings until the connection is lost; says why it was.
    async fn ping(&self, line: &mut PeerConnection, refused: &mut u32) -> Trouble {
        let began = Instant::now();
        let mut ticks = interval_at(began + self.interval.mul_f64(jitter()), self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut looks = interval_at(began + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut heard, mut strange) = (0_u64, 0_u64);
        loop {
            tokio::select! {
                came = line.hear() => match came {
                    Ok(Some((rtt, ways))) => {
                        self.path.hear(clock::now(), rtt, ways);
                        (heard, *refused) = (heard + 1, 0);
                    }
                    Ok(None) => strange += 1,
                    Err(trouble) => return trouble,
                },
                _ = ticks.tick() => match line.ping() {
                    Ok(sent) => self.meters.shed(ShedReason::PathPings, u64::from(!sent)),
                    Err(trouble) => return trouble,
                },
                _ = looks.tick() => {
                    self.meters.shed(ShedReason::PathUnrecognized, std::mem::take(&mut strange));
                    match std::mem::take(&mut heard) {
                        0 => self.source.unanswered(clock::now(), "silence", "pings leave and nothing comes back"),
                        _ => self.source.answered(clock::now()),
                    }
                }
            }
        }
    }
}

/// Connects, pings until an echo comes back, and leaves again.
///
/// # Errors
/// What failed.
pub(super) async fn try_once(peer: &PeerSettings, client: ClientConfig) -> Result<Duration, Trouble> {
    let mut line = PeerConnection::open(peer, client, 0).await?;
    let mut ticks = tokio::time::interval(TRY_EVERY);
    for _ in 0..TRIES {
        tokio::select! {
            came = line.hear() => if let Some((rtt, _)) = came? {
                return Ok(rtt);
            },
            _ = ticks.tick() => {
                line.ping()?;
            }
        }
    }
    Err(Trouble { reason: "silence", message: format!("it takes the connection and answers none of {TRIES} pings") })
}

/// How often a source's line of a pinged peer is written.
const LOOK: Duration = Duration::from_secs(1);
/// The pause before the first attempt to connect again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Pings of a single try.
const TRIES: u32 = 20;
const TRY_EVERY: Duration = Duration::from_millis(100);
