//! Echoes the pings of other nodes. A node must prove its address (RFC 9000, section 8.1) and present a certificate of
//! the authority; pings that arrive faster than any node sends them are dropped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use liveqos_core::metrics::ShedReason;
use liveqos_core::node::{ECHO_BYTES, ReceivedPings, ping};
use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::connection::peer_error;
use super::settings::MIN_INTERVAL;
use crate::platform::SelfMetrics;

/// Nodes that may ping this one at the same time; more are refused and counted.
pub(super) const MAX_CONNECTIONS: usize = 1_024;

/// Answers pings until aborted.
pub(super) async fn run(endpoint: Endpoint, meters: SelfMetrics) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while connections.try_join_next().is_some() {}
        if !incoming.remote_address_validated() {
            // An address that may be forged gets no state here; where no Retry can be sent, the attempt is ignored.
            incoming.retry().unwrap_or_else(|error| error.into_incoming().ignore());
            continue;
        }
        if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
            connections.spawn(accept(incoming, permit, meters.clone()));
        } else {
            meters.shed(ShedReason::PathConnections, 1);
            incoming.refuse();
        }
    }
}

async fn accept(incoming: Incoming, permit: OwnedSemaphorePermit, meters: SelfMetrics) {
    let from = incoming.remote_address();
    let accepted = async { incoming.accept()?.await };
    match timeout(HANDSHAKE, accepted).await {
        Ok(Ok(connection)) => echo(&connection, &meters).await,
        Ok(Err(error)) => {
            meters.shed(ShedReason::PathRefused, 1);
            let reason = peer_error(&error).reason;
            tracing::debug!(%from, reason, "refused a node: {error}");
        }
        Err(_) => meters.shed(ShedReason::PathRefused, 1),
    }
    drop(permit);
}

/// Echoes pings until the connection ends.
async fn echo(connection: &Connection, meters: &SelfMetrics) {
    let (mut received, mut budget) = (ReceivedPings::default(), Budget { tokens: BURST, at: Instant::now() });
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
        let echo = Bytes::copy_from_slice(&received.take(number).to_bytes());
        if connection.send_datagram(echo).is_err() {
            return;
        }
        // Sends each echo in a packet of its own: echoes that share one are lost together.
        tokio::task::yield_now().await;
    }
}

/// How many pings of one node are still answered: a token bucket.
struct Budget {
    tokens: f64,
    at: Instant,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let refill = (now - self.at).as_secs_f64() / MIN_INTERVAL.as_secs_f64() * SLACK;
        (self.tokens, self.at) = ((self.tokens + refill).min(BURST), now);
        let granted = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(granted));
        granted
    }
}

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The rate allowed to a node, in multiples of that of the shortest interval.
const SLACK: f64 = 2.0;
/// Pings that may arrive at once, after a pause in the network.
const BURST: f64 = 512.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_sends_too_fast_is_limited() {
        let start = Instant::now();
        let answered = |step: Duration| {
            let mut budget = Budget { tokens: BURST, at: start };
            (1..=6_000_u32).filter(|count| budget.take(start + step * *count)).count()
        };
        assert_eq!(answered(MIN_INTERVAL), 6_000);
        let flooded = answered(Duration::from_millis(1));
        assert!((1_100..=1_115).contains(&flooded), "100 a second for 6 s and 512 at once: {flooded}");
    }
}
