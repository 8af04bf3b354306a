//! Whether the path to another node is degraded: loss by the evidence, the round trip against its own past. Refuses to judge a path by
//! its length alone.

use std::time::Duration;

use crate::condition::{Condition, Finding};
use crate::docket::evidence;
use crate::sample::Share;
use crate::surroundings::PathWord;
use crate::time::Timestamp;
use crate::trailing::{Need, Trail, Trailing};

/// The memory of one path.
#[derive(Clone, Debug)]
pub(crate) struct PathWatch {
    loss: Trailing,
    heard: Option<Timestamp>,
    rtt: Option<f64>,
    usual_rtt: Option<f64>,
    pub(crate) condition: Condition,
}

impl PathWatch {
    pub(crate) fn new() -> Self {
        let loss = Trailing::new(&PATH_NEED);
        Self { loss, heard: None, rtt: None, usual_rtt: None, condition: Condition::default() }
    }

    /// Takes in the newest word and judges the path.
    pub(crate) fn look(&mut self, now: Timestamp, word: &PathWord, loss_limit: f64) -> Finding {
        if self.heard != Some(word.at) {
            let before = self.heard.replace(word.at).unwrap_or(word.at);
            self.loss.add(before, word.at, word.loss.unwrap_or_default(), 0);
            if let Some(rtt) = word.rtt.map(|rtt| rtt.as_secs_f64()) {
                self.hear_rtt(rtt, word.at.since(before));
            }
        }
        if now.since(word.at) > STALE {
            return Finding::Unknown;
        }
        let judged = |share: Share| evidence(share.ratio(), loss_limit, "ratio", (share.whole, "packets"));
        let lossy = self.loss.against(loss_limit, loss_limit * 0.7);
        if let Some(Trail::Over(share, onset)) = lossy {
            return Finding::Bad(judged(share), onset);
        }
        match (self.rtt.zip(self.usual_rtt), lossy) {
            (Some((rtt, usual)), _) => {
                let limit = (usual * 2.0).max(usual + RTT_MARGIN);
                let evidence = evidence(rtt, limit, "seconds", (usual * 1e3, "ms of round trip usually"));
                match rtt {
                    rtt if rtt > limit => Finding::Bad(evidence, now),
                    rtt if rtt > f64::midpoint(usual, limit) => Finding::Between,
                    _ => Finding::Good(evidence),
                }
            }
            (None, Some(Trail::Under(share))) => Finding::Good(judged(share)),
            _ => Finding::Unknown,
        }
    }

    fn hear_rtt(&mut self, rtt: f64, elapsed: Duration) {
        let share = |seconds: f64| 1.0 - (-elapsed.as_secs_f64() / seconds).exp();
        let now = self.rtt.map_or(rtt, |known| known + (rtt - known) * share(3.0));
        self.rtt = Some(now);
        // It grows better at once and worse slowly, and not while it is an alert.
        let usual = self.usual_rtt.unwrap_or(rtt);
        let slow = if self.condition.firing().is_some() { 0.0 } else { share(600.0) };
        self.usual_rtt = Some(if now < usual { now } else { usual + (now - usual) * slow });
    }
}

/// Under a judgement of a path lie 500 packets at least: probes are few.
static PATH_NEED: Need = Need { whole: 500.0, occurrence: 2.0, length: 2.0, timed: false, proof: 13.0 };
/// A round trip is degraded at twice its usual course, and this much longer at least, in seconds.
const RTT_MARGIN: f64 = 0.03;
/// A word older than this says nothing of now.
const STALE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn play(words: impl IntoIterator<Item = (u64, f64)>) -> Vec<Finding> {
        let mut watch = PathWatch::new();
        let words = words.into_iter().enumerate().map(|(second, (rtt, loss))| {
            let at = Timestamp::from_secs(second as u64);
            let loss = Share::of(loss * 200.0, 200.0);
            let word = PathWord { peer: "origin-1".into(), at, rtt: Some(Duration::from_millis(rtt)), loss };
            watch.look(at, &word, 0.005)
        });
        words.collect()
    }

    #[test]
    fn a_path_is_held_against_its_own_past() {
        let far = play(std::iter::repeat_n((250, 0.0), 60));
        assert!(far.iter().all(|finding| matches!(finding, Finding::Good(_))), "far is not degraded");
        let slower = play(std::iter::repeat_n((20, 0.0), 60).chain(std::iter::repeat_n((90, 0.0), 10)));
        assert!(matches!(slower.last(), Some(Finding::Bad(..))));
        let lossy = play(std::iter::repeat_n((20, 0.0), 60).chain(std::iter::repeat_n((20, 0.05), 5)));
        assert!(matches!(lossy.last(), Some(Finding::Bad(evidence, _)) if evidence.unit == "ratio"));
    }
}
