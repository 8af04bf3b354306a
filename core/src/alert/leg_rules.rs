//! Stutter and loss of one class's legs. Decides which leg is the worst; a large healthy leg does not hide a small
//! faulty one.

use std::time::Duration;

use super::cause::ClassSignals;
use super::evidence::{CLEAR, evidence};
use super::evidence_window::{EvidenceRule, EvidenceWindow, Judgement};
use super::hysteresis::Finding;
use crate::base::SmallMap;
use crate::model::{Objectives, Protocol, Share, Timestamp};
use crate::session::{LegTotals, Live};

/// The evidence of one class.
#[derive(Clone, Debug, Default)]
pub(crate) struct LegRules {
    legs: SmallMap<Protocol, Leg>,
    /// All legs together, where there are several.
    whole: Option<Box<EvidenceWindow>>,
}

#[derive(Clone, Debug)]
struct Leg {
    seen: LegTotals,
    stutter: EvidenceWindow,
    loss: EvidenceWindow,
}

impl LegRules {
    /// The class is impaired: what is measured now stays out of its baseline.
    pub(crate) fn exclude_from_baseline(&mut self, now: Timestamp) {
        for (_, leg) in self.legs.iter_mut() {
            leg.stutter.exclude_from_baseline(now);
            leg.loss.exclude_from_baseline(now);
        }
        if let Some(whole) = &mut self.whole {
            whole.exclude_from_baseline(now);
        }
    }

    /// Adds what the legs' totals gained since the last evaluation.
    pub(crate) fn take(&mut self, (from, to): (Timestamp, Timestamp), live: &Live) {
        let (mut all, mut all_stalls, mut legs) = (Share::default(), 0_u64, 0);
        for (protocol, leg) in live.legs() {
            let totals = leg.totals();
            let rules = self.legs.at(protocol, Leg::default);
            let was = std::mem::replace(&mut rules.seen, totals);
            let stutter = Share {
                part: (totals.stalled_seconds - was.stalled_seconds).max(0.0),
                whole: (totals.exposure_seconds - was.exposure_seconds).max(0.0),
            };
            let stalls = totals.stall_starts.saturating_sub(was.stall_starts);
            rules.stutter.add(from, to, stutter, stalls);
            all.part += stutter.part;
            all.whole += stutter.whole;
            all_stalls = all_stalls.saturating_add(stalls);
            legs += u32::from(totals.exposure_seconds > 0.0);
            // Totals by players are another sum than the kernel's: begin anew.
            let was = if totals.by_players == was.by_players { was } else { LegTotals::default() };
            let loss = Share {
                part: totals.lost.saturating_sub(was.lost) as f64,
                whole: totals.expected.saturating_sub(was.expected) as f64,
            };
            rules.loss.add(from, to, loss, 0);
        }
        if legs > 1 {
            let whole = self.whole.get_or_insert_with(|| Box::new(EvidenceWindow::new(&STUTTER_RULE)));
            whole.add(from, to, all, all_stalls);
        }
    }

    /// The worst of the legs and, where there are several, of all together.
    pub(crate) fn stutter(&self, objectives: &Objectives) -> Finding {
        let whole = self.whole.as_deref().and_then(|whole| judged(whole, objectives.stutter_ratio, "viewer-seconds"));
        let legs = self
            .legs
            .iter()
            .filter_map(|(protocol, leg)| judged(&leg.stutter, objectives.of(*protocol).stutter, "viewer-seconds"));
        worst(legs.chain(whole))
    }

    /// The worst of the legs.
    pub(crate) fn loss(&self, objectives: &Objectives) -> Finding {
        worst(
            self.legs.iter().filter_map(|(protocol, leg)| judged(&leg.loss, objectives.of(*protocol).loss, "packets")),
        )
    }

    /// Adds what is known about one leg to the signals of the class.
    pub(crate) fn add_signals(&self, protocol: Protocol, objectives: &Objectives, signals: &mut ClassSignals) {
        let Some(leg) = self.legs.get(&protocol) else { return };
        let promise = objectives.of(protocol);
        if let Some(share) = leg.loss.recent(RECENT)
            && signals.loss.is_none_or(|(known, limit)| share.ratio() / promise.loss > known / limit)
        {
            signals.loss = Some((share.ratio(), promise.loss));
        }
        if let Some(share) = leg.stutter.recent(RECENT) {
            signals.stalled = signals.stalled.max(share.ratio());
        }
        match judged(&leg.stutter, promise.stutter, "viewer-seconds") {
            Some((_, Finding::Bad(..))) => signals.legs.0.push(protocol.as_str()),
            Some((_, Finding::Good(_))) => signals.legs.1.push(protocol.as_str()),
            _ => {}
        }
    }
}

impl Default for Leg {
    fn default() -> Self {
        let (stutter, loss) = (EvidenceWindow::new(&STUTTER_RULE), EvidenceWindow::new(&LOSS_RULE));
        Self { seen: LegTotals::default(), stutter, loss }
    }
}

/// The finding of a window against its objective, and its rank among legs: proven before high.
fn judged(window: &EvidenceWindow, limit: f64, unit: &'static str) -> Option<(f64, Finding)> {
    let evidence_of = |share: Share| evidence(share.ratio(), limit, "ratio", (share.whole, unit));
    Some(match window.judge(limit, limit * CLEAR)? {
        Judgement::Over(share, onset) => (1e3 + share.ratio() / limit, Finding::Bad(evidence_of(share), onset)),
        Judgement::Under(share) if share.ratio() < limit * CLEAR => {
            (share.ratio() / limit, Finding::Good(evidence_of(share)))
        }
        Judgement::Under(share) => (share.ratio() / limit, Finding::Between),
    })
}

fn worst(judged: impl Iterator<Item = (f64, Finding)>) -> Finding {
    judged.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(Finding::Unknown, |(_, finding)| finding)
}

/// A judgement of stutter rests on at least 60 viewer-seconds: one freeze of 200 ms is then a third of one percent. A
/// stall that lasts counts as another one every 5 s.
static STUTTER_RULE: EvidenceRule =
    EvidenceRule { whole: 60.0, occurrence: 5.0, length: 0.2, timed: true, proof: 14.0 };
/// A judgement of loss rests on at least 2,000 packets: ten lost ones at the objective of 0.5 %. Loss comes in bursts:
/// four packets count as one occurrence.
static LOSS_RULE: EvidenceRule =
    EvidenceRule { whole: 2_000.0, occurrence: 4.0, length: 4.0, timed: false, proof: 15.0 };
/// Loss and stalls named as signs of a cause are those of this long.
const RECENT: Duration = Duration::from_secs(5);
