//! Whether the path to another node is degraded. Decides by loss in each direction and by the round trip against its
//! own baseline. A long path is not a degraded one, and a silent one is unknown: neither healthy nor proven bad.

use std::time::Duration;

use super::evidence::evidence;
use super::evidence_window::{EvidenceRule, EvidenceWindow, Judgement};
use super::hysteresis::{Finding, Hysteresis};
use crate::model::{PathReport, Share, Timestamp};

/// The state of one path.
#[derive(Clone, Debug)]
pub(crate) struct PathRules {
    directions: [EvidenceWindow; 2],
    last_report: Option<Timestamp>,
    rtt: Option<f64>,
    baseline_rtt: Option<f64>,
    silent: Option<Timestamp>,
    pub(crate) hysteresis: Hysteresis,
}

impl PathRules {
    pub(crate) fn new() -> Self {
        let directions = std::array::from_fn(|_| EvidenceWindow::new(&PATH_RULE));
        Self {
            directions,
            last_report: None,
            rtt: None,
            baseline_rtt: None,
            silent: None,
            hysteresis: Hysteresis::default(),
        }
    }

    /// What is wrong with the path now, as text: its alert, or that it fell silent recently.
    pub(crate) fn fault(&self, peer: &str, now: Timestamp) -> Option<String> {
        if let Some((_, evidence)) = self.hysteresis.firing() {
            return Some(format!("the path to {peer} is degraded: {evidence}"));
        }
        let silent = now.since(self.silent?);
        let recent = silent <= SILENCE_EXPLAINS;
        recent.then(|| {
            format!("nothing came back from {peer} for {} s: the path is cut or that node is gone", silent.as_secs())
        })
    }

    /// Takes in the newest report and judges the path.
    pub(crate) fn evaluate(&mut self, now: Timestamp, report: &PathReport, loss_limit: f64) -> Finding {
        if self.last_report != Some(report.at) {
            let before = self.last_report.replace(report.at).unwrap_or(report.at);
            for (window, share) in self.directions.iter_mut().zip([report.out, report.back]) {
                window.add(before, report.at, share.unwrap_or_default(), 0);
            }
            if let Some(rtt) = report.rtt.map(|rtt| rtt.as_secs_f64()) {
                self.update_rtt(rtt, report.at.since(before));
            }
        }
        self.silent = report.silent;
        if report.silent.is_some() || now.since(report.at) > STALE {
            return Finding::Unknown;
        }
        let judged = |share: Share, direction| evidence(share.ratio(), loss_limit, "ratio", (share.whole, direction));
        let mut worst = None;
        for (window, direction) in self.directions.iter().zip(["pings sent there", "pings on their way back"]) {
            match window.judge(loss_limit, loss_limit * 0.7) {
                Some(Judgement::Over(share, onset)) => return Finding::Bad(judged(share, direction), onset),
                Some(Judgement::Under(share))
                    if worst.is_none_or(|(known, _): (Share, _)| known.ratio() < share.ratio()) =>
                {
                    worst = Some((share, direction));
                }
                _ => {}
            }
        }
        match (self.rtt.zip(self.baseline_rtt), worst) {
            (Some((rtt, baseline)), _) => {
                let limit = (baseline * 2.0).max(baseline + RTT_MARGIN);
                let evidence = evidence(rtt, limit, "seconds", (baseline * 1e3, "ms of round trip usually"));
                match rtt {
                    rtt if rtt > limit => Finding::Bad(evidence, now),
                    rtt if rtt > f64::midpoint(baseline, limit) => Finding::Between,
                    _ => Finding::Good(evidence),
                }
            }
            (None, Some((share, direction))) => Finding::Good(judged(share, direction)),
            (None, None) => Finding::Unknown,
        }
    }

    fn update_rtt(&mut self, rtt: f64, elapsed: Duration) {
        let share = |seconds: f64| 1.0 - (-elapsed.as_secs_f64() / seconds).exp();
        let now = self.rtt.map_or(rtt, |known| known + (rtt - known) * share(3.0));
        self.rtt = Some(now);
        // The baseline falls at once and rises slowly, and not while an alert is firing.
        let baseline = self.baseline_rtt.unwrap_or(rtt);
        let slow = if self.hysteresis.firing().is_some() { 0.0 } else { share(600.0) };
        self.baseline_rtt = Some(if now < baseline { now } else { baseline + (now - baseline) * slow });
    }
}

/// A judgement of a path rests on at least 500 pings.
static PATH_RULE: EvidenceRule = EvidenceRule { whole: 500.0, occurrence: 2.0, length: 2.0, timed: false, proof: 13.0 };
/// A round trip is degraded at twice its baseline, and at least this many seconds above it.
const RTT_MARGIN: f64 = 0.03;
/// An older report says nothing about the present.
const STALE: Duration = Duration::from_secs(15);
/// How long the silence of a path may explain faults on this node.
const SILENCE_EXPLAINS: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn report(second: u64, rtt: u64) -> PathReport {
        let (at, rtt) = (Timestamp::from_secs(second), Some(Duration::from_millis(rtt)));
        PathReport { peer: "origin-1".into(), at, rtt, out: None, back: Share::of(0.0, 200.0), silent: None }
    }

    fn play(reports: impl IntoIterator<Item = (u64, f64)>) -> Vec<Finding> {
        let mut rules = PathRules::new();
        let reports = reports.into_iter().enumerate().map(|(second, (rtt, loss))| {
            let report = PathReport { out: Share::of(loss * 200.0, 200.0), ..report(second as u64, rtt) };
            rules.evaluate(report.at, &report, 0.005)
        });
        reports.collect()
    }

    #[test]
    fn each_direction_is_judged_separately() {
        let mut rules = PathRules::new();
        let mut findings = (0..60).map(|second| {
            let report = PathReport { out: Share::of(0.0, 200.0), back: Share::of(2.0, 200.0), ..report(second, 20) };
            rules.evaluate(report.at, &report, 0.007)
        });
        assert!(
            findings.any(|finding| matches!(finding, Finding::Bad(evidence, _) if evidence.size_unit == "pings on their way back")),
            "1 % of one way is over 0.7 %, though 0.5 % of both together is not"
        );
    }

    #[test]
    fn a_silent_path_is_unknown_and_explains_faults_for_a_while() {
        let mut rules = PathRules::new();
        for second in 0..30 {
            assert_eq!(rules.fault("origin-1", Timestamp::from_secs(second)), None);
            rules.evaluate(Timestamp::from_secs(second), &report(second, 20), 0.005);
        }
        let silent = PathReport { silent: Some(Timestamp::from_secs(29)), ..report(29, 20) };
        let at = |second| Timestamp::from_secs(second);
        assert_eq!(rules.evaluate(at(33), &silent, 0.005), Finding::Unknown);
        let text = rules.fault("origin-1", at(33)).expect("a sign");
        assert!(text.starts_with("nothing came back from origin-1 for 4 s"), "{text}");
        assert_eq!(rules.fault("origin-1", at(200)), None, "a fault that begins now has another cause");
    }

    #[test]
    fn a_path_is_compared_with_its_own_baseline() {
        let far = play(std::iter::repeat_n((250, 0.0), 60));
        assert!(far.iter().all(|finding| matches!(finding, Finding::Good(_))), "far is not degraded");
        let slower = play(std::iter::repeat_n((20, 0.0), 60).chain(std::iter::repeat_n((90, 0.0), 10)));
        assert!(matches!(slower.last(), Some(Finding::Bad(..))));
        let lossy = play(std::iter::repeat_n((20, 0.0), 60).chain(std::iter::repeat_n((20, 0.05), 5)));
        assert!(matches!(lossy.last(), Some(Finding::Bad(evidence, _)) if evidence.unit == "ratio"));
    }
}
