//! Rules that are compared with each other on the same stalls: the ratio less two standard errors, a CUSUM (the
//! sequential test against one fixed fault), and the product's own. They show why the last is used.

use std::collections::VecDeque;

use liveqos_core::alert::{EvidenceRule, EvidenceWindow, Judgement};
use liveqos_core::model::{Share, TICK, Timestamp};

use crate::simulation::crowd::Delta;
use crate::simulation::plain_rule::Rule;

/// Over 1 % by two standard errors of the number of occurrences on some trailing span of at most a minute, in two of
/// three ticks.
#[derive(Default)]
pub(crate) struct TwoErrors {
    spans: VecDeque<Delta>,
    history: u32,
}

impl Rule for TwoErrors {
    fn tick(&mut self, delta: Delta) -> bool {
        self.spans.push_back(delta);
        if self.spans.len() > 240 {
            self.spans.pop_front();
        }
        let (mut sum, mut elapsed, mut proven) = (Delta::default(), 0.0, false);
        for (ticks, span) in self.spans.iter().rev().enumerate() {
            sum.exposure += span.exposure;
            sum.stalled += span.stalled;
            sum.starts += span.starts;
            elapsed += 0.25;
            // The older the span, the coarser.
            let checked = ticks < 10 || (ticks + 1).is_multiple_of(20);
            if checked && sum.exposure >= 60.0 {
                let occurrences = (sum.starts as f64).max(sum.stalled / elapsed).max(sum.stalled / 5.0);
                proven |= sum.stalled / sum.exposure * (1.0 - 2.0 / occurrences.sqrt()) > 0.01;
            }
        }
        self.history = self.history << 1 | u32::from(proven);
        (self.history & 7).count_ones() >= 2
    }
}

/// Page's test of the number of stalls that begin: 2 % against 0.3 %, the length of a stall known in advance.
pub(crate) struct Cusum {
    length: f64,
    sum: f64,
    threshold: f64,
}

impl Cusum {
    pub(crate) const fn new(length: f64, threshold: f64) -> Self {
        Self { length, sum: 0.0, threshold }
    }
}

impl Rule for Cusum {
    fn tick(&mut self, delta: Delta) -> bool {
        let (healthy, fault) = (0.003 / self.length, 0.02 / self.length);
        let gain = delta.starts as f64 * (fault / healthy).ln() - (fault - healthy) * delta.exposure;
        self.sum = (self.sum + gain).max(0.0);
        self.sum >= self.threshold
    }
}

/// The product's rule.
pub(crate) struct Ours {
    window: EvidenceWindow,
    ticks: u64,
}

impl Ours {
    pub(crate) const fn new(rule: &'static EvidenceRule) -> Self {
        Self { window: EvidenceWindow::new(rule), ticks: 0 }
    }
}

impl Rule for Ours {
    fn tick(&mut self, delta: Delta) -> bool {
        let from = Timestamp::from_secs(1_700_000_000) + TICK * self.ticks as u32;
        self.ticks += 1;
        let share = Share { part: delta.stalled, whole: delta.exposure };
        self.window.add(from, from + TICK, share, delta.starts);
        let over = matches!(self.window.judge(0.01, 0.007), Some(Judgement::Over(..)));
        if over {
            self.window.exclude_from_baseline(from + TICK);
        }
        over
    }
}
