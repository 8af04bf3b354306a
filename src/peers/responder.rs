//! The end of a path that echoes the pings of other nodes. Decides who is let in: who proves its address and shows a
//! certificate of the authority, while there is room; refuses pings that come faster than any node sends them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use liveqos_core::metrics::ShedReason;
use liveqos_core::node::{Came, ECHO_BYTES, ping};
use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::connection::trouble;
use super::settings::LEAST_INTERVAL;
use crate::platform::SelfMetrics;

/// Nodes that may ping this one at once; more are refused and counted.
pub(super) const MAX_CONNECTIONS: usize = 1_024;

/// Answers until aborted.
pub(super) async fn run(endpoint: Endpoint, meters: SelfMetrics) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while connections.try_join_next().is_some() {}
        if !incoming.remote_address_validated() {
            // Nothing is kept of an address that may be forged. That of one which cannot be asked is worth no more.
            incoming.retry().unwrap_or_else(|error| error.into_incoming().ignore());
            continue;
        }
        if let Ok(place) = Arc::clone(&room).try_acquire_owned() {
            connections.spawn(take(incoming, place, meters.clone()));
        } else {
            meters.shed(ShedReason::PathConnections, 1);
            incoming.refuse();
        }
    }
}

async fn take(incoming: Incoming, place: OwnedSemaphorePermit, meters: SelfMetrics) {
    let from = incoming.remote_address();
    let accepted = async { incoming.accept()?.await };
    match timeout(HANDSHAKE, accepted).await {
        Ok(Ok(connection)) => echo(&connection, &meters).await,
        Ok(Err(error)) => {
            meters.shed(ShedReason::PathRefused, 1);
            let trouble = trouble(&error);
            tracing::debug!(%from, reason = trouble.reason, "a node was refused: {error}");
        }
        Err(_) => meters.shed(ShedReason::PathRefused, 1),
    }
    drop(place);
}

/// Echoes until the connection ends.
async fn echo(connection: &Connection, meters: &SelfMetrics) {
    let (mut came, mut budget) = (Came::default(), Budget { left: BURST, at: Instant::now() });
    while let Ok(datagram) = connection.read_datagram().await {
        let Some(number) = ping::read_ping(&datagram) else {
            meters.shed(ShedReason::PathUnrecognized, 1);
            continue;
        };
        if !budget.take(Instant::now()) {
            meters.shed(ShedReason::PathEchoRate, 1);
            continue;
        }
        if connection.datagram_send_buffer_space() < ECHO_BYTES {
            meters.shed(ShedReason::PathEchoes, 1);
        }
        let echo = Bytes::copy_from_slice(&came.take(number).to_bytes());
        if connection.send_datagram(echo).is_err() {
            return;
        }
        // So that it leaves by itself: echoes that share a packet are lost together.
        tokio::task::yield_now().await;
    }
}

/// What one node may still send.
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let earned = (now - self.at).as_secs_f64() / LEAST_INTERVAL.as_secs_f64() * SLACK;
        (self.left, self.at) = ((self.left + earned).min(BURST), now);
        let is_enough = self.left >= 1.0;
        self.left -= f64::from(u8::from(is_enough));
        is_enough
    }
}

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A node may send so many times what its shortest interval comes to.
const SLACK: f64 = 2.0;
/// Pings that may come at once, after a pause of the network.
const BURST: f64 = 512.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_faster_than_any_node_is_slowed_down() {
        let start = Instant::now();
        let taken = |step: Duration| {
            let mut budget = Budget { left: BURST, at: start };
            (1..=6_000_u32).filter(|count| budget.take(start + step * *count)).count()
        };
        assert_eq!(taken(LEAST_INTERVAL), 6_000);
        let flooded = taken(Duration::from_millis(1));
        assert!((1_100..=1_115).contains(&flooded), "100 a second for 6 s and 512 at once: {flooded}");
    }
}
