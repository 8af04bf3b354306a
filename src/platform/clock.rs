//! The only reader of time. Decides what *now* is: wall-clock time that does not go back, so that no window is
//! negative. A clock set back by little is waited for; one set back by more starts a new epoch, in which everybody
//! forgets the instants of the old one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use liveqos_core::model::Timestamp;

/// A step back of up to this is waited out: time stands still meanwhile.
pub const WAITED_FOR: Duration = Duration::from_secs(2);

/// The wall clock.
#[derive(Debug, Default)]
pub struct Clock {
    held: Mutex<(Timestamp, u64)>,
}

impl Clock {
    /// A clock that has not been read.
    #[must_use]
    pub const fn new() -> Self {
        Self { held: Mutex::new((Timestamp::from_nanos(0), 0)) }
    }

    /// Now; within an epoch not before any earlier answer.
    pub fn now(&self) -> Timestamp {
        self.read(system_time()).0
    }

    /// The number of times the clock was set back by more than [`WAITED_FOR`].
    pub fn epoch(&self) -> u64 {
        self.read(system_time()).1
    }

    fn read(&self, system: Timestamp) -> (Timestamp, u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, epoch) = *held;
        *held = match newest.since(system) {
            back if back > WAITED_FOR => (system, epoch + 1),
            _ => (newest.max(system), epoch),
        };
        *held
    }
}

/// The clock of this process.
pub static CLOCK: Clock = Clock::new();

/// Now, by the clock of this process.
pub fn now() -> Timestamp {
    CLOCK.now()
}

/// Tells when the clock was set back since it was last asked.
#[derive(Debug, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// Whether a new epoch began.
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
    fn a_small_step_back_is_waited_for_and_a_large_one_is_a_new_epoch() {
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
