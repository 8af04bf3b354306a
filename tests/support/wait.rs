//! Waiting for what must come true. Decides that tests wait for conditions, never for a time that is hoped to be long
//! enough.

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

/// The first `Some` that `look` returns, asked again and again. Panics with `what` when there is none within `within`.
pub async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        in_time(what, began, within);
        tokio::time::sleep(PAUSE).await;
    }
}

/// [`until`] for tests without a runtime; waits [`PATIENCE`] at most.
pub fn until_blocking<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        in_time(what, began, PATIENCE);
        std::thread::sleep(PAUSE);
    }
}

fn in_time(what: &str, began: Instant, within: Duration) {
    assert!(began.elapsed() < within, "waited {within:?} in vain for {what}");
}

/// The machine for one test alone: for tests that measure.
pub async fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::const_new(());
    MACHINE.lock().await
}

/// Longest wait for anything that has no bound of its own: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(50);
