//! The only reader of time. Decides what *now* is: wall-clock time that never goes back while the daemon runs, so that a step of the
//! system clock backwards makes a beat late instead of a window negative.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use liveqos_core::time::Timestamp;

/// The wall clock, held still while it is set back.
#[derive(Debug, Default)]
pub struct Clock {
    newest_nanos: AtomicU64,
}

impl Clock {
    /// A clock that has not been read.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            newest_nanos: AtomicU64::new(0),
        }
    }

    /// Now; not before any earlier answer.
    pub fn now(&self) -> Timestamp {
        let nanos = u64::try_from(system_time().as_nanos()).unwrap_or(u64::MAX);
        let newest = self.newest_nanos.fetch_max(nanos, Ordering::Relaxed);
        Timestamp::from_nanos(nanos.max(newest))
    }
}

/// The clock of this process.
pub static CLOCK: Clock = Clock::new();

/// Now, by the clock of this process.
pub fn now() -> Timestamp {
    CLOCK.now()
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
fn system_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let clock = Clock::new();
        let first = clock.now();
        clock
            .newest_nanos
            .store(first.nanos() + 5_000_000_000, Ordering::Relaxed);
        assert_eq!(
            clock.now().nanos(),
            first.nanos() + 5_000_000_000,
            "held while the system clock is behind"
        );
        assert!(first > Timestamp::from_secs(1_700_000_000));
    }
}
