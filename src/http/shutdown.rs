//! How connections learn that the daemon stops, and how long they have to finish.

use std::time::Duration;

use tokio::sync::watch;

/// How long an open connection has to finish its response when the daemon stops.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Returns when `stop` turns true, or when its sender is gone.
pub(super) async fn requested(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
