//! Stutter and loss of one class's legs before the judge, each on its trail. Decides which leg is the worst; refuses to
//! let a large healthy leg hide a small faulty one.

use std::time::Duration;

use super::cause::ClassSignals;
use super::evidence::{CLEAR, evidence};
use super::evidence_window::{EvidenceRule, EvidenceWindow, Judgement};
use super::hysteresis::Finding;
use crate::base::SmallMap;
use crate::model::{Objectives, Protocol, Share, Timestamp};
use crate::session::{LegTotals, Live};

/// The trails of one class.
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
    /// Says that the class suffers: what comes teaches nothing of its usual course.
    pub(crate) fn accuse(&mut self, now: Timestamp) {
        for (_, leg) in self.legs.iter_mut() {
            leg.stutter.accuse(now);
            leg.loss.accuse(now);
        }
        if let Some(whole) = &mut self.whole {
            whole.accuse(now);
        }
    }

    /// What was added to the legs' totals since the last look.
    pub(crate) fn take(&mut self, (from, to): (Timestamp, Timestamp), live: &Live) {
        let (mut all, mut all_stalls, mut legs) = (Share::default(), 0_u64, 0);
        for (protocol, leg) in live.legs() {
            let totals = leg.totals();
            let track = self.legs.at(protocol, Leg::default);
            let was = std::mem::replace(&mut track.seen, totals);
            let stutter = Share {
                part: (totals.stalled_seconds - was.stalled_seconds).max(0.0),
                whole: (totals.exposure_seconds - was.exposure_seconds).max(0.0),
            };
            let stalls = totals.stall_starts.saturating_sub(was.stall_starts);
            track.stutter.add(from, to, stutter, stalls);
            all.part += stutter.part;
            all.whole += stutter.whole;
            all_stalls = all_stalls.saturating_add(stalls);
            legs += u32::from(totals.exposure_seconds > 0.0);
            // Players that begin to count start another sum than the kernel's.
            let was = if totals.by_players == was.by_players { was } else { LegTotals::default() };
            let loss = Share {
                part: totals.lost.saturating_sub(was.lost) as f64,
                whole: totals.expected.saturating_sub(was.expected) as f64,
            };
            track.loss.add(from, to, loss, 0);
        }
        if legs > 1 {
            let whole = self.whole.get_or_insert_with(|| Box::new(EvidenceWindow::new(&STUTTER_NEED)));
            whole.add(from, to, all, all_stalls);
        }
    }

    /// The worst of the legs and, where there are several, of all together.
    pub(crate) fn stutter(&self, objectives: &Objectives) -> Finding {
        let whole = self.whole.as_deref().and_then(|whole| trailing(whole, objectives.stutter_ratio, "viewer-seconds"));
        let legs = self
            .legs
            .iter()
            .filter_map(|(protocol, leg)| trailing(&leg.stutter, objectives.of(*protocol).stutter, "viewer-seconds"));
        worst(legs.chain(whole))
    }

    /// The worst of the legs.
    pub(crate) fn loss(&self, objectives: &Objectives) -> Finding {
        worst(
            self.legs
                .iter()
                .filter_map(|(protocol, leg)| trailing(&leg.loss, objectives.of(*protocol).loss, "packets")),
        )
    }

    /// Adds what is known of one leg to what is known of the class.
    pub(crate) fn own(&self, protocol: Protocol, objectives: &Objectives, own: &mut ClassSignals) {
        let Some(leg) = self.legs.get(&protocol) else { return };
        let promise = objectives.of(protocol);
        if let Some(share) = leg.loss.lately(RECENT)
            && own.loss.is_none_or(|(known, limit)| share.ratio() / promise.loss > known / limit)
        {
            own.loss = Some((share.ratio(), promise.loss));
        }
        if let Some(share) = leg.stutter.lately(RECENT) {
            own.stalled = own.stalled.max(share.ratio());
        }
        match trailing(&leg.stutter, promise.stutter, "viewer-seconds") {
            Some((_, Finding::Bad(..))) => own.legs.0.push(protocol.as_str()),
            Some((_, Finding::Good(_))) => own.legs.1.push(protocol.as_str()),
            _ => {}
        }
    }
}

impl Default for Leg {
    fn default() -> Self {
        let (stutter, loss) = (EvidenceWindow::new(&STUTTER_NEED), EvidenceWindow::new(&LOSS_NEED));
        Self { seen: LegTotals::default(), stutter, loss }
    }
}

/// What a trail says against its objective, and how bad that is beside what other legs say: proven before high.
fn trailing(trail: &EvidenceWindow, limit: f64, unit: &'static str) -> Option<(f64, Finding)> {
    let judged = |share: Share| evidence(share.ratio(), limit, "ratio", (share.whole, unit));
    Some(match trail.against(limit, limit * CLEAR)? {
        Judgement::Over(share, onset) => (1e3 + share.ratio() / limit, Finding::Bad(judged(share), onset)),
        Judgement::Under(share) if share.ratio() < limit * CLEAR => {
            (share.ratio() / limit, Finding::Good(judged(share)))
        }
        Judgement::Under(share) => (share.ratio() / limit, Finding::Between),
    })
}

fn worst(judged: impl Iterator<Item = (f64, Finding)>) -> Finding {
    judged.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(Finding::Unknown, |(_, finding)| finding)
}

/// Under a judgement of stutter lie 60 viewer-seconds at least: one freeze of 200 ms is then a third of one percent. A
/// stall of a viewer that does not come back counts as another one every 5 s.
static STUTTER_NEED: EvidenceRule =
    EvidenceRule { whole: 60.0, occurrence: 5.0, length: 0.2, timed: true, proof: 14.0 };
/// Under a judgement of loss lie 2,000 packets at least: ten lost ones at the objective of 0.5 %. Losses come in
/// bursts: four count as one occurrence.
static LOSS_NEED: EvidenceRule =
    EvidenceRule { whole: 2_000.0, occurrence: 4.0, length: 4.0, timed: false, proof: 15.0 };
/// Loss beside a fault is that of so long.
const RECENT: Duration = Duration::from_secs(5);
