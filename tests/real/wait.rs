//! Waiting for what must come true. Decides that tests wait on conditions, never for a time that is hoped to be long
//! enough.

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

/// What `look` gives as soon as it gives something; `what` is told when it does not within `within`.
pub(crate) async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < within, "waited {within:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The machine for one test alone: they measure.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::const_new(());
    MACHINE.lock().await
}

const PAUSE: Duration = Duration::from_millis(50);
