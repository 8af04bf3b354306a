//! Rules that judge the same stalls, beside ours: the plain 1 % rule, the ratio less two standard errors, and a CUSUM
//! (the sequential test against one fixed fault). None is used; they show why ours is.

use std::collections::VecDeque;

use liveqos_core::alert::{EvidenceRule, EvidenceWindow, Judgement};
use liveqos_core::model::{Share, TICK, Timestamp};

use crate::crowd::Told;

/// What every rule answers to a tick: whether stutter is over 1 % now.
pub(crate) trait Rule {
    fn tick(&mut self, told: Told) -> bool;
}

/// Over 1 % on the smallest trailing span of 60 viewer-seconds, in two of three looks.
#[derive(Default)]
pub(crate) struct Plain {
    spans: VecDeque<Told>,
    history: u32,
}

impl Rule for Plain {
    fn tick(&mut self, told: Told) -> bool {
        self.spans.push_back(told);
        while self.spans.len() > 1 && self.spans.iter().skip(1).map(|span| span.exposure).sum::<f64>() >= 60.0 {
            self.spans.pop_front();
        }
        let exposure: f64 = self.spans.iter().map(|span| span.exposure).sum();
        let stalled: f64 = self.spans.iter().map(|span| span.stalled).sum();
        self.history = self.history << 1 | u32::from(exposure >= 60.0 && stalled > 0.01 * exposure);
        (self.history & 7).count_ones() >= 2
    }
}

/// Over 1 % by two standard errors of the number of occurrences on some trailing span of at most a minute, in two of
/// three looks.
#[derive(Default)]
pub(crate) struct TwoErrors {
    spans: VecDeque<Told>,
    history: u32,
}

impl Rule for TwoErrors {
    fn tick(&mut self, told: Told) -> bool {
        self.spans.push_back(told);
        if self.spans.len() > 240 {
            self.spans.pop_front();
        }
        let (mut sum, mut elapsed, mut proven) = (Told::default(), 0.0, false);
        for (ticks, span) in self.spans.iter().rev().enumerate() {
            sum.exposure += span.exposure;
            sum.stalled += span.stalled;
            sum.starts += span.starts;
            elapsed += 0.25;
            // The older the span, the coarser.
            let looks = ticks < 10 || (ticks + 1).is_multiple_of(20);
            if looks && sum.exposure >= 60.0 {
                let occurrences = (sum.starts as f64).max(sum.stalled / elapsed).max(sum.stalled / 5.0);
                proven |= sum.stalled / sum.exposure * (1.0 - 2.0 / occurrences.sqrt()) > 0.01;
            }
        }
        self.history = self.history << 1 | u32::from(proven);
        (self.history & 7).count_ones() >= 2
    }
}

/// Page's test of the number of stalls that begin: 2 % against 0.3 %, the length of a stall known beforehand.
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
    fn tick(&mut self, told: Told) -> bool {
        let (usual, fault) = (0.003 / self.length, 0.02 / self.length);
        let gain = told.starts as f64 * (fault / usual).ln() - (fault - usual) * told.exposure;
        self.sum = (self.sum + gain).max(0.0);
        self.sum >= self.threshold
    }
}

/// The trail that the judge uses.
pub(crate) struct Ours {
    trail: EvidenceWindow,
    ticks: u64,
}

impl Ours {
    pub(crate) const fn new(rule: &'static EvidenceRule) -> Self {
        Self { trail: EvidenceWindow::new(rule), ticks: 0 }
    }
}

impl Rule for Ours {
    fn tick(&mut self, told: Told) -> bool {
        let from = Timestamp::from_secs(1_700_000_000) + TICK * self.ticks as u32;
        self.ticks += 1;
        let share = Share { part: told.stalled, whole: told.exposure };
        self.trail.add(from, from + TICK, share, told.starts);
        let over = matches!(self.trail.judge(0.01, 0.007), Some(Judgement::Over(..)));
        if over {
            self.trail.exclude_from_baseline(from + TICK);
        }
        over
    }
}
