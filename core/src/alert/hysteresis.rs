//! One alert's memory on one subject. Decides when evaluations make it fire and when it is clear again (hysteresis);
//! refuses to change its mind on missing evidence: unknown keeps what was known.

use std::time::Duration;

use crate::model::{Evidence, NoticeState, Timestamp};

/// How many of the last evaluations must be bad, and how long it must be good to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// So many bad ones …
    pub bad: u32,
    /// … among the last so many (at most 32).
    pub of: u32,
    /// Good without a break for so long clears.
    pub clear_after: Duration,
}

impl Rule {
    /// One evaluation that proves a breach is enough; clear after 5 s.
    pub(super) const PROVEN: Self = Self { bad: 1, of: 1, clear_after: Duration::from_secs(5) };
    /// One evaluation is enough either way.
    pub(super) const AT_ONCE: Self = Self { bad: 1, of: 1, clear_after: Duration::ZERO };
    /// Six of eight seconds over the limit; clear after 10 s.
    pub(super) const SUSTAINED: Self = Self { bad: 24, of: 32, clear_after: Duration::from_secs(10) };
}

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finding {
    /// Over the limit; since when by the evidence.
    Bad(Evidence, Timestamp),
    /// Between the clearing bar and the limit: neither fires nor clears.
    Between,
    /// Under the clearing bar.
    Good(Evidence),
    /// Under the clearing bar, without the numbers: nothing fires that they could resolve.
    Calm,
    /// Not enough evidence to say.
    Unknown,
}

/// The state of one alert.
#[derive(Clone, Debug, Default)]
pub(super) struct Hysteresis {
    history: u32,
    flaps: u8,
    resolved_at: Option<Timestamp>,
    onset: Option<Timestamp>,
    good_since: Option<Timestamp>,
    last_bad: Option<Evidence>,
    firing: bool,
}

impl Hysteresis {
    /// Takes one look's finding; gives the change, its onset and evidence where there was one.
    pub(super) fn step(
        &mut self,
        now: Timestamp,
        rule: Rule,
        finding: Finding,
    ) -> Option<(NoticeState, Timestamp, Evidence)> {
        let mask = u32::MAX >> (32 - rule.of.clamp(1, 32));
        match finding {
            Finding::Unknown => None,
            Finding::Bad(evidence, since) => {
                self.good_since = None;
                self.last_bad = Some(evidence);
                self.history = self.history << 1 | 1;
                let onset = *self.onset.get_or_insert(since);
                let fires = !self.firing && (self.history & mask).count_ones() >= rule.bad;
                if fires {
                    self.firing = true;
                    let again = self.resolved_at.is_some_and(|resolved| now.since(resolved) <= FLAPPING);
                    self.flaps = if again { self.flaps.saturating_add(1).min(MOST_FLAPS) } else { 0 };
                }
                fires.then_some((NoticeState::Firing, onset, evidence))
            }
            Finding::Between => {
                self.good_since = None;
                self.history <<= 1;
                if !self.firing && self.history & mask == 0 {
                    self.onset = None;
                }
                None
            }
            Finding::Calm if self.firing => None,
            Finding::Calm => {
                self.history <<= 1;
                self.onset = None;
                None
            }
            Finding::Good(evidence) => {
                self.history <<= 1;
                let since = *self.good_since.get_or_insert(now);
                if !self.firing {
                    self.onset = None;
                    return None;
                }
                if now.since(since) < rule.clear_after * 2_u32.pow(u32::from(self.flaps)) {
                    return None;
                }
                let onset = self.onset.take().unwrap_or(since);
                *self = Self { flaps: self.flaps, resolved_at: Some(now), ..Self::default() };
                Some((NoticeState::Resolved, onset, evidence))
            }
        }
    }

    /// One that fires since `onset` on `evidence`, as it did before the daemon went down.
    #[must_use]
    pub(super) fn resumed(onset: Timestamp, evidence: Evidence) -> Self {
        Self { onset: Some(onset), last_bad: Some(evidence), firing: true, ..Self::default() }
    }

    /// Whether it goes on from here as a new one would: nothing bad in its looks, no onset, and no alert lately that
    /// would flap.
    #[must_use]
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let flaps = self.resolved_at.is_some_and(|resolved| now.since(resolved) <= FLAPPING);
        !self.firing && self.history == 0 && self.onset.is_none() && !flaps
    }

    /// Whether it fires: since which onset, and what was last found over the limit.
    #[must_use]
    pub(super) fn firing(&self) -> Option<(Timestamp, Evidence)> {
        self.onset.zip(self.last_bad).filter(|_| self.firing)
    }
}

/// What fires again this soon after it was clear is flapping: each time it must stay clear for twice as long, so that a
/// fault that comes and goes becomes one incident.
pub(super) const FLAPPING: Duration = Duration::from_mins(2);
/// It must stay clear for no more than sixteen times as long.
const MOST_FLAPS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { bad: 2, of: 3, clear_after: Duration::from_secs(2) };
    const EVIDENCE: Evidence = Evidence { value: 0.0, threshold: 0.0, unit: "ratio", size: 0.0, size_unit: "viewers" };

    /// One character a second: b bad, m between, g good, u unknown; upper case marks in the answer where it fired (F)
    /// or resolved (R).
    fn play(looks: &str) -> String {
        let mut condition = Hysteresis::default();
        let mut out = String::new();
        for (second, look) in looks.chars().enumerate() {
            let now = Timestamp::from_secs(second as u64);
            let finding = match look {
                'b' => Finding::Bad(EVIDENCE, now),
                'm' => Finding::Between,
                'g' => Finding::Good(EVIDENCE),
                _ => Finding::Unknown,
            };
            out.push(match condition.step(now, RULE, finding) {
                Some((NoticeState::Firing, ..)) => 'F',
                Some((NoticeState::Resolved, ..)) => 'R',
                None => '.',
            });
        }
        out
    }

    #[test]
    fn health_sequences() {
        for (looks, changes) in [
            ("gbgbg", "...F."),
            ("gbggb", "....."),
            ("bbbbgggg", ".F....R."),
            ("bbgmggg", ".F....R"),
            ("bbuuuuuu", ".F......"),
            ("bubu", "..F."),
            ("bbggbggg", ".F.....R"),
            ("bbgggbb", ".F..R.F"),
            ("bbgggbbggggg", ".F..R.F....R"),
            ("bbgggbbgggbgggggbg", ".F..R.F........R.."),
        ] {
            assert_eq!(play(looks), changes, "{looks}");
        }
    }
}
