//! How long an answer is waited for before another attempt begins beside it. Decides by how long answers took lately;
//! refuses to wait a whole time-out for a collector that used to answer at once.

use std::time::Duration;

/// What is known of one lane's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AnswerTimeout {
    /// The slowest answer of late; older ones count less and less.
    slowest: Option<Duration>,
}

impl AnswerTimeout {
    /// How long to wait now: twice as long as answers take, `least` at least, and `unknown` where there was none yet.
    pub(super) fn now(self, least: Duration, unknown: Duration) -> Duration {
        self.slowest.map_or(unknown, |slowest| least.max(slowest.saturating_mul(2)))
    }

    /// An answer took so long.
    pub(super) fn learn(&mut self, took: Duration) {
        let before = self.slowest.unwrap_or_default();
        self.slowest = Some(took.max(before.saturating_sub(before / FADE)));
    }
}

/// With each answer what was before counts by this part less.
const FADE: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_slowest_answer_and_comes_back() {
        let (least, timeout) = (Duration::from_secs(2), Duration::from_secs(10));
        let mut patience = AnswerTimeout::default();
        assert_eq!(patience.now(least, timeout), timeout);
        patience.learn(Duration::from_millis(50));
        assert_eq!(patience.now(least, timeout), least);
        patience.learn(Duration::from_secs(4));
        assert_eq!(patience.now(least, timeout), Duration::from_secs(8));
        patience.learn(Duration::from_millis(50));
        assert_eq!(patience.now(least, timeout), Duration::from_secs(7), "one quick answer proves little");
        (0..10).for_each(|_| patience.learn(Duration::from_millis(50)));
        assert_eq!(patience.now(least, timeout), least);
        patience.learn(Duration::MAX);
        assert_eq!(patience.now(least, timeout), Duration::MAX);
    }
}
