//! When one alert fires and when it clears. Decides by the last findings (hysteresis); missing evidence changes
//! nothing: unknown keeps what was known.

use std::time::Duration;

use crate::model::{Evidence, NoticeState, Timestamp};

/// How many of the last findings must be bad to fire, and how long they must be good to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// This number of bad findings …
    pub bad: u32,
    /// … among the last this many (at most 32).
    pub of: u32,
    /// Good without interruption for this long clears.
    pub clear_after: Duration,
}

impl Rule {
    /// One proven breach is enough; clears after 5 s.
    pub(super) const PROVEN: Self = Self { bad: 1, of: 1, clear_after: Duration::from_secs(5) };
    /// One finding is enough either way.
    pub(super) const AT_ONCE: Self = Self { bad: 1, of: 1, clear_after: Duration::ZERO };
    /// Six of eight seconds over the limit; clears after 10 s.
    pub(super) const SUSTAINED: Self = Self { bad: 24, of: 32, clear_after: Duration::from_secs(10) };
}

/// What one evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finding {
    /// Over the limit, and since when by the evidence.
    Bad(Evidence, Timestamp),
    /// Between the clearing bar and the limit: neither fires nor clears.
    Between,
    /// Under the clearing bar.
    Good(Evidence),
    /// Under the clearing bar, without numbers: only where nothing is firing that they could resolve.
    GoodUnmeasured,
    /// Not enough evidence.
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
    /// Takes the finding of one evaluation; where the alert changed, gives its new state, onset and evidence.
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
            Finding::GoodUnmeasured if self.firing => None,
            Finding::GoodUnmeasured => {
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

    /// An alert that has been firing since `onset` on `evidence`, restored after a restart.
    #[must_use]
    pub(super) fn resumed(onset: Timestamp, evidence: Evidence) -> Self {
        Self { onset: Some(onset), last_bad: Some(evidence), firing: true, ..Self::default() }
    }

    /// Whether it would behave like a new one: no bad finding, no onset, and no recent alert that could flap.
    #[must_use]
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let flaps = self.resolved_at.is_some_and(|resolved| now.since(resolved) <= FLAPPING);
        !self.firing && self.history == 0 && self.onset.is_none() && !flaps
    }

    /// The onset and the last evidence over the limit, while it is firing.
    #[must_use]
    pub(super) fn firing(&self) -> Option<(Timestamp, Evidence)> {
        self.onset.zip(self.last_bad).filter(|_| self.firing)
    }
}

/// An alert that fires again this soon after it cleared is flapping: each time it must stay clear for twice as long, so
/// that a fault that comes and goes becomes one incident.
pub(super) const FLAPPING: Duration = Duration::from_mins(2);
/// At most sixteen times as long: four doublings.
const MOST_FLAPS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { bad: 2, of: 3, clear_after: Duration::from_secs(2) };
    const EVIDENCE: Evidence = Evidence { value: 0.0, threshold: 0.0, unit: "ratio", size: 0.0, size_unit: "viewers" };

    /// One character a second: b bad, m between, g good, u unknown. The answer marks where it fired (F) or resolved
    /// (R).
    fn play(findings: &str) -> String {
        let mut hysteresis = Hysteresis::default();
        let mut out = String::new();
        for (second, letter) in findings.chars().enumerate() {
            let now = Timestamp::from_secs(second as u64);
            let finding = match letter {
                'b' => Finding::Bad(EVIDENCE, now),
                'm' => Finding::Between,
                'g' => Finding::Good(EVIDENCE),
                _ => Finding::Unknown,
            };
            out.push(match hysteresis.step(now, RULE, finding) {
                Some((NoticeState::Firing, ..)) => 'F',
                Some((NoticeState::Resolved, ..)) => 'R',
                None => '.',
            });
        }
        out
    }

    #[test]
    fn health_sequences() {
        for (findings, changes) in [
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
            assert_eq!(play(findings), changes, "{findings}");
        }
    }
}
