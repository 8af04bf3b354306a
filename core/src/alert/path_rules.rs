//! Whether the path to another node is degraded: loss on either way by the evidence, the round trip against its own
//! past. Refuses to judge a path by its length alone, and one on which nothing comes back: that is unknown, not healthy
//! and not proven bad.

use std::time::Duration;

use super::evidence::evidence;
use super::evidence_window::{EvidenceRule, EvidenceWindow, Judgement};
use super::hysteresis::{Finding, Hysteresis};
use crate::model::{PathReport, Share, Timestamp};

/// The memory of one path.
#[derive(Clone, Debug)]
pub(crate) struct PathRules {
    ways: [EvidenceWindow; 2],
    heard: Option<Timestamp>,
    rtt: Option<f64>,
    usual_rtt: Option<f64>,
    silent: Option<Timestamp>,
    pub(crate) condition: Hysteresis,
}

impl PathRules {
    pub(crate) fn new() -> Self {
        let ways = std::array::from_fn(|_| EvidenceWindow::new(&PATH_NEED));
        Self { ways, heard: None, rtt: None, usual_rtt: None, silent: None, condition: Hysteresis::default() }
    }

    /// What speaks against the path now, in words: its alert, or that it fell silent lately.
    pub(crate) fn against(&self, peer: &str, now: Timestamp) -> Option<String> {
        if let Some((_, evidence)) = self.condition.firing() {
            return Some(format!("the path to {peer} is degraded: {evidence}"));
        }
        let silent = now.since(self.silent?);
        let lately = silent <= SILENCE_TELLS;
        lately.then(|| {
            format!("nothing came back from {peer} for {} s: the path is cut or that node is gone", silent.as_secs())
        })
    }

    /// Takes in the newest word and judges the path.
    pub(crate) fn look(&mut self, now: Timestamp, word: &PathReport, loss_limit: f64) -> Finding {
        if self.heard != Some(word.at) {
            let before = self.heard.replace(word.at).unwrap_or(word.at);
            for (trail, share) in self.ways.iter_mut().zip([word.out, word.back]) {
                trail.add(before, word.at, share.unwrap_or_default(), 0);
            }
            if let Some(rtt) = word.rtt.map(|rtt| rtt.as_secs_f64()) {
                self.hear_rtt(rtt, word.at.since(before));
            }
        }
        self.silent = word.silent;
        if word.silent.is_some() || now.since(word.at) > STALE {
            return Finding::Unknown;
        }
        let judged = |share: Share, way| evidence(share.ratio(), loss_limit, "ratio", (share.whole, way));
        let mut worst = None;
        for (trail, way) in self.ways.iter().zip(["pings sent there", "pings on their way back"]) {
            match trail.against(loss_limit, loss_limit * 0.7) {
                Some(Judgement::Over(share, onset)) => return Finding::Bad(judged(share, way), onset),
                Some(Judgement::Under(share))
                    if worst.is_none_or(|(known, _): (Share, _)| known.ratio() < share.ratio()) =>
                {
                    worst = Some((share, way));
                }
                _ => {}
            }
        }
        match (self.rtt.zip(self.usual_rtt), worst) {
            (Some((rtt, usual)), _) => {
                let limit = (usual * 2.0).max(usual + RTT_MARGIN);
                let evidence = evidence(rtt, limit, "seconds", (usual * 1e3, "ms of round trip usually"));
                match rtt {
                    rtt if rtt > limit => Finding::Bad(evidence, now),
                    rtt if rtt > f64::midpoint(usual, limit) => Finding::Between,
                    _ => Finding::Good(evidence),
                }
            }
            (None, Some((share, way))) => Finding::Good(judged(share, way)),
            (None, None) => Finding::Unknown,
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

/// Under a judgement of a path lie 500 pings at least: they are few.
static PATH_NEED: EvidenceRule = EvidenceRule { whole: 500.0, occurrence: 2.0, length: 2.0, timed: false, proof: 13.0 };
/// A round trip is degraded at twice its usual course, and this much longer at least, in seconds.
const RTT_MARGIN: f64 = 0.03;
/// A word older than this says nothing of now.
const STALE: Duration = Duration::from_secs(15);
/// So long after a path fell silent its silence may explain what goes wrong on this node.
const SILENCE_TELLS: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn word(second: u64, rtt: u64) -> PathReport {
        let (at, rtt) = (Timestamp::from_secs(second), Some(Duration::from_millis(rtt)));
        PathReport { peer: "origin-1".into(), at, rtt, out: None, back: Share::of(0.0, 200.0), silent: None }
    }

    fn play(words: impl IntoIterator<Item = (u64, f64)>) -> Vec<Finding> {
        let mut watch = PathRules::new();
        let words = words.into_iter().enumerate().map(|(second, (rtt, loss))| {
            let word = PathReport { out: Share::of(loss * 200.0, 200.0), ..word(second as u64, rtt) };
            watch.look(word.at, &word, 0.005)
        });
        words.collect()
    }

    #[test]
    fn either_way_is_judged_for_itself() {
        let mut watch = PathRules::new();
        let mut looks = (0..60).map(|second| {
            let word = PathReport { out: Share::of(0.0, 200.0), back: Share::of(2.0, 200.0), ..word(second, 20) };
            watch.look(word.at, &word, 0.007)
        });
        assert!(
            looks.any(|finding| matches!(finding, Finding::Bad(evidence, _) if evidence.size_unit == "pings on their way back")),
            "1 % of one way is over 0.7 %, though 0.5 % of both together is not"
        );
    }

    #[test]
    fn silence_is_unknown_and_for_a_while_it_is_a_sign() {
        let mut watch = PathRules::new();
        for second in 0..30 {
            assert_eq!(watch.against("origin-1", Timestamp::from_secs(second)), None);
            watch.look(Timestamp::from_secs(second), &word(second, 20), 0.005);
        }
        let silent = PathReport { silent: Some(Timestamp::from_secs(29)), ..word(29, 20) };
        let at = |second| Timestamp::from_secs(second);
        assert_eq!(watch.look(at(33), &silent, 0.005), Finding::Unknown);
        let words = watch.against("origin-1", at(33)).expect("a sign");
        assert!(words.starts_with("nothing came back from origin-1 for 4 s"), "{words}");
        assert_eq!(watch.against("origin-1", at(200)), None, "whatever begins now has another cause");
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
