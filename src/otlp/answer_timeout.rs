//! How long to wait for an answer before the next attempt: twice the slowest recent answer. A collector that usually
//! answers at once is not waited for until the configured time-out.

use std::time::Duration;

/// How long the answers to requests of one lane took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AnswerTimeout {
    /// The slowest recent answer; each later one reduces it.
    slowest: Option<Duration>,
}

impl AnswerTimeout {
    /// The time to wait now: twice the slowest recent answer, at least `least`; `unknown` before the first answer.
    pub(super) fn now(self, least: Duration, unknown: Duration) -> Duration {
        self.slowest.map_or(unknown, |slowest| least.max(slowest.saturating_mul(2)))
    }

    /// Records how long an answer took.
    pub(super) fn record(&mut self, took: Duration) {
        let before = self.slowest.unwrap_or_default();
        self.slowest = Some(took.max(before.saturating_sub(before / FADE)));
    }
}

/// Each answer reduces the earlier maximum by one part in this many.
const FADE: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_slowest_answer_and_recovers() {
        let (least, timeout) = (Duration::from_secs(2), Duration::from_secs(10));
        let mut answers = AnswerTimeout::default();
        assert_eq!(answers.now(least, timeout), timeout);
        answers.record(Duration::from_millis(50));
        assert_eq!(answers.now(least, timeout), least);
        answers.record(Duration::from_secs(4));
        assert_eq!(answers.now(least, timeout), Duration::from_secs(8));
        answers.record(Duration::from_millis(50));
        assert_eq!(answers.now(least, timeout), Duration::from_secs(7), "one quick answer proves little");
        (0..10).for_each(|_| answers.record(Duration::from_millis(50)));
        assert_eq!(answers.now(least, timeout), least);
        answers.record(Duration::MAX);
        assert_eq!(answers.now(least, timeout), Duration::MAX);
    }
}
