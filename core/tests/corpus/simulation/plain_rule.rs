//! The plain rule that the product's is compared with.

use std::collections::VecDeque;

use super::crowd::Delta;

/// A rule, asked at every tick whether stutter exceeds 1 % now.
pub(crate) trait Rule {
    fn tick(&mut self, delta: Delta) -> bool;
}

/// Over 1 % on the smallest trailing span of 60 viewer-seconds, in two of three ticks.
#[derive(Default)]
pub(crate) struct Plain {
    spans: VecDeque<Delta>,
    history: u32,
}

impl Rule for Plain {
    fn tick(&mut self, delta: Delta) -> bool {
        self.spans.push_back(delta);
        while self.spans.len() > 1 && self.spans.iter().skip(1).map(|span| span.exposure).sum::<f64>() >= 60.0 {
            self.spans.pop_front();
        }
        let exposure: f64 = self.spans.iter().map(|span| span.exposure).sum();
        let stalled: f64 = self.spans.iter().map(|span| span.stalled).sum();
        self.history = self.history << 1 | u32::from(exposure >= 60.0 && stalled > 0.01 * exposure);
        (self.history & 7).count_ones() >= 2
    }
}
