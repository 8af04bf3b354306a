//! The only reader of wall-clock time, which never goes back within an epoch, so that no window is negative.
//!
//! When the system clock is set back by up to [`MAX_WAIT`], time stands still until it has caught up. When it is set
//! back by more, a new epoch begins, and whoever remembers instants of the old one must forget them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use liveqos_core::model::Timestamp;

/// The longest step back that is waited out.
pub const MAX_WAIT: Duration = Duration::from_secs(2);

/// The wall clock.
#[derive(Debug, Default)]
pub struct Clock {
    /// The newest instant and the epoch.
    last: Mutex<(Timestamp, u64)>,
}

impl Clock {
    /// A clock that has not been read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: Mutex::new((Timestamp::from_nanos(0), 0)) }
    }

    /// The current time; within an epoch never before an earlier result.
    pub fn now(&self) -> Timestamp {
        self.read(system_time()).0
    }

    /// The number of times the clock was set back by more than [`MAX_WAIT`].
    pub fn epoch(&self) -> u64 {
        self.read(system_time()).1
    }

    fn read(&self, system: Timestamp) -> (Timestamp, u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, epoch) = *last;
        *last = match newest.since(system) {
            back if back > MAX_WAIT => (system, epoch + 1),
            _ => (newest.max(system), epoch),
        };
        *last
    }
}

/// The clock of this process.
pub static CLOCK: Clock = Clock::new();

/// The current time by [`CLOCK`].
pub fn now() -> Timestamp {
    CLOCK.now()
}

/// Notices that the clock was set back.
#[derive(Debug, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// Whether a new epoch began since the last call.
    pub fn is_new(&mut self) -> bool {
        let now = CLOCK.epoch();
        std::mem::replace(&mut self.0, now) != now
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    #[test]
    fn a_small_step_back_is_waited_out_and_a_large_one_begins_an_epoch() {
        let clock = Clock::new();
        let read = |seconds| clock.read(at(seconds));
        assert_eq!(
            [read(100), read(99), read(98), read(101)],
            [(at(100), 0), (at(100), 0), (at(100), 0), (at(101), 0)]
        );
        assert_eq!([read(50), read(51)], [(at(50), 1), (at(51), 1)]);
        assert!(Clock::new().now() > at(1_700_000_000));
    }
}
