//! Wall-clock instants, the 250 ms tick and the 5 s grid. Decides where a window begins and ends. Never reads a clock:
//! every instant is an argument, so a recorded day replays in a second.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The length of a sample window. All nodes cut at the same multiples of it, so that the samples of the fleet can be
/// joined.
pub const GRID: Duration = Duration::from_secs(5);

/// How often the alerts are evaluated.
pub const TICK: Duration = Duration::from_millis(250);

/// A wall-clock instant in nanoseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The instant `nanos` nanoseconds after the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `millis` milliseconds after the Unix epoch; saturates in the year 2554.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The instant `secs` seconds after the Unix epoch; saturates in the year 2554.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds since the Unix epoch, with fraction.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Time from `earlier` to `self`; zero when `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The largest multiple of `step` not after `self`. `step` must not be zero.
    ///
    /// ```
    /// use liveqos_core::model::{GRID, Timestamp};
    /// assert_eq!(Timestamp::from_millis(12_345).floor(GRID), Timestamp::from_secs(10));
    /// ```
    #[must_use]
    pub const fn floor(self, step: Duration) -> Self {
        let step = step.as_nanos() as u64;
        Self(self.0 - self.0 % step)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// Seconds with millisecond fraction, for log lines and errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000)
    }
}

/// The time that a sample covers. Both ends lie on the 5 s grid; longer than one step when ticks were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant after it: the cut.
    pub end: Timestamp,
}

impl Window {
    /// The window between the last cut and the newest grid point not after `now`, or `None` when no grid point was
    /// passed. A late or missed tick gives one longer window, never two.
    ///
    /// ```
    /// use liveqos_core::model::{Timestamp, Window};
    /// let last = Timestamp::from_secs(10);
    /// assert_eq!(Window::due(last, Timestamp::from_millis(14_999)), None);
    /// let late = Window::due(last, Timestamp::from_millis(21_200)).unwrap();
    /// assert_eq!((late.start, late.end), (last, Timestamp::from_secs(20)));
    /// assert!(late.is_long());
    /// ```
    #[must_use]
    pub fn due(last_cut: Timestamp, now: Timestamp) -> Option<Self> {
        let end = now.floor(GRID);
        (end > last_cut).then_some(Self { start: last_cut, end })
    }

    /// The window's length.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.end.since(self.start)
    }

    /// Whether ticks were missed, so that the window spans more than one grid step.
    #[must_use]
    pub fn is_long(self) -> bool {
        self.duration() > GRID
    }
}
