//! Whether people must be told. Decides at every beat, from the folded totals, whether an objective is broken or kept again; refuses
//! to judge on too little evidence and to take silence for health.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Incident;
use crate::condition::{Condition, Finding, Rule};
use crate::few::Few;
use crate::leg::LegTotals;
use crate::live::Live;
use crate::notice::{Alert, Cause, Evidence, Notice, NoticeState, Subject};
use crate::observation::SourceName;
use crate::registry::Registry;
use crate::sample::{Closed, Share};
use crate::session::{Name, Protocol, Session};
use crate::time::Timestamp;
use crate::trailing::{Need, Trail, Trailing};

/// What is promised, per class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objectives {
    /// Delivery latency that 95 % of viewers must not exceed, in seconds.
    pub latency_seconds: f64,
    /// Stalled over exposure time, pooled over viewers, 0 to 1.
    pub stutter_ratio: f64,
    /// Packets lost over expected, before repair, 0 to 1.
    pub loss_ratio: f64,
    /// Frames per second over the declared ones, 0 to 1.
    pub fps_ratio: f64,
    /// Share of the node's processor, memory or network in use, 0 to 1.
    pub load_ratio: f64,
}

impl Default for Objectives {
    fn default() -> Self {
        Self { latency_seconds: 0.2, stutter_ratio: 0.01, loss_ratio: 0.005, fps_ratio: 0.6, load_ratio: 0.95 }
    }
}

/// How loaded the node is; each 0 to 1, absent where it cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct NodeLoad {
    /// Processor time in use over all cores.
    pub cpu_ratio: Option<f64>,
    /// Memory not available to new work.
    pub memory_ratio: Option<f64>,
    /// The busiest interface's direction over its speed.
    pub nic_ratio: Option<f64>,
}

/// What surrounds the sessions.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The node's load.
    pub node: NodeLoad,
    /// Each source and since when it is silent, where it is.
    pub sources: Vec<(SourceName, Option<Timestamp>)>,
}

/// The judge's memory.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    sessions: BTreeMap<Name, Box<Docket>>,
    sources: BTreeMap<SourceName, Condition>,
    node: Condition,
    last_look: Option<Timestamp>,
}

/// What is remembered of one session.
#[derive(Clone, Debug)]
struct Docket {
    session: Arc<Session>,
    legs: Few<Protocol, (LegTotals, Trailing)>,
    stutter: Trailing,
    conditions: Few<Alert, Condition>,
}

impl Judge {
    /// Looks at everything once.
    pub fn look(
        &mut self,
        now: Timestamp,
        objectives: &Objectives,
        registry: &Registry,
        around: &Surroundings,
    ) -> Vec<Notice> {
        let before = self.last_look.replace(now).unwrap_or(now);
        let mut notices = Vec::new();
        for live in registry.sessions() {
            let docket =
                self.sessions.entry(live.session.id.clone()).or_insert_with(|| Box::new(Docket::new(&live.session)));
            docket.look((before, now), objectives, live, &mut notices);
        }
        self.look_around(now, objectives, around, &mut notices);
        notices
    }

    /// Goes on with the alerts that fired on `session` when the daemon went down.
    pub(crate) fn resume(&mut self, session: &Arc<Session>, incidents: &[Incident]) {
        if incidents.is_empty() {
            return;
        }
        let docket = self.sessions.entry(session.id.clone()).or_insert_with(|| Box::new(Docket::new(session)));
        for incident in incidents {
            let resumed = || Condition::resumed(incident.started_at, incident.evidence());
            docket.conditions.at(incident.alert, resumed);
        }
    }

    /// Resolves what still fires for sessions that closed, with the evidence that it fired on: there is no newer one.
    pub fn close(&mut self, closed: &[Closed]) -> Vec<Notice> {
        let mut notices = Vec::new();
        for closed in closed {
            let Some(docket) = self.sessions.remove(&closed.session.id) else {
                continue;
            };
            for (alert, condition) in docket.conditions {
                if let Some(change) = ended(&condition) {
                    let subject = Subject::Session(Arc::clone(&closed.session));
                    notices.push(notice(alert, subject, closed.at, change));
                }
            }
        }
        notices
    }

    fn look_around(&mut self, now: Timestamp, objectives: &Objectives, around: &Surroundings, out: &mut Vec<Notice>) {
        let left_out = |source: &SourceName| !around.sources.iter().any(|(known, _)| known == source);
        for (source, condition) in self.sources.extract_if(.., |source, _| left_out(source)) {
            if let Some(change) = ended(&condition) {
                out.push(notice(Alert::LiveSourceDown, Subject::Source(source), now, change));
            }
        }
        for (source, silent_since) in &around.sources {
            let silent = silent_since.map(|since| now.since(since).as_secs_f64());
            let evidence = evidence(silent.unwrap_or(0.0), 0.0, "seconds", (silent.unwrap_or(0.0), "seconds"));
            let finding = silent_since.map_or(Finding::Good(evidence), |since| Finding::Bad(evidence, since));
            let condition = self.sources.entry(source.clone()).or_default();
            if let Some(change) = condition.step(now, AT_ONCE, finding) {
                out.push(notice(Alert::LiveSourceDown, Subject::Source(source.clone()), now, change));
            }
        }
        let load = [around.node.cpu_ratio, around.node.memory_ratio, around.node.nic_ratio];
        let worst = load.into_iter().flatten().max_by(f64::total_cmp);
        let finding = worst.map_or(Finding::Unknown, |worst| {
            against(evidence(worst, objectives.load_ratio, "ratio", (1.0, "node")), now)
        });
        if let Some(change) = self.node.step(now, SUSTAINED, finding) {
            let cause = Cause::Node;
            out.push(Notice { cause, ..notice(Alert::LiveNodeOverloaded, Subject::Node, now, change) });
        }
    }
}

impl Docket {
    fn new(session: &Arc<Session>) -> Self {
        Self {
            session: Arc::clone(session),
            legs: Few::new(),
            stutter: Trailing::new(STUTTER_NEED),
            conditions: Few::new(),
        }
    }

    fn look(&mut self, span: (Timestamp, Timestamp), objectives: &Objectives, live: &Live, out: &mut Vec<Notice>) {
        self.session = Arc::clone(&live.session);
        self.difference(span, live);
        let now = span.1;
        let findings = [
            (Alert::LiveStutterHigh, TWO_OF_THREE, self.stutter(objectives)),
            (Alert::LivePacketLossHigh, TWO_OF_THREE, self.loss(objectives)),
            (Alert::LiveLatencyHigh, SIX_OF_EIGHT, latency(now, objectives, live)),
            (Alert::LiveStreamDown, AT_ONCE, stream_down(now, live)),
            (Alert::LiveFpsLow, SUSTAINED, fps(now, objectives, live)),
        ];
        for (alert, rule, finding) in findings {
            if finding == Finding::Unknown && self.conditions.get(&alert).is_none() {
                continue;
            }
            let condition = self.conditions.at(alert, Condition::default);
            if let Some(change) = condition.step(now, rule, finding) {
                out.push(notice(alert, Subject::Session(Arc::clone(&self.session)), now, change));
            }
        }
    }

    /// What was added to the legs' totals since the last look.
    fn difference(&mut self, (from, to): (Timestamp, Timestamp), live: &Live) {
        let mut stutter = Share::default();
        let mut stalls = 0_u64;
        for (protocol, leg) in live.legs() {
            let totals = leg.totals();
            let (seen, trail) = self.legs.at(protocol, || (LegTotals::default(), Trailing::new(LOSS_NEED)));
            let was = std::mem::replace(seen, totals);
            stutter.part += (totals.stalled_seconds - was.stalled_seconds).max(0.0);
            stutter.whole += (totals.exposure_seconds - was.exposure_seconds).max(0.0);
            stalls = stalls.saturating_add(totals.stall_starts.saturating_sub(was.stall_starts));
            // Players that begin to count start another sum than the kernel's.
            let was = if totals.by_players == was.by_players { was } else { LegTotals::default() };
            let loss = Share {
                part: totals.lost.saturating_sub(was.lost) as f64,
                whole: totals.expected.saturating_sub(was.expected) as f64,
            };
            trail.add(from, to, loss, 0);
        }
        self.stutter.add(from, to, stutter, stalls);
    }

    fn stutter(&self, objectives: &Objectives) -> Finding {
        trailing(&self.stutter, objectives.stutter_ratio, "viewer-seconds")
            .map_or(Finding::Unknown, |(_, finding)| finding)
    }

    fn loss(&self, objectives: &Objectives) -> Finding {
        let judged = self.legs.values().filter_map(|(_, trail)| trailing(trail, objectives.loss_ratio, "packets"));
        judged.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(Finding::Unknown, |(_, finding)| finding)
    }
}

/// What a trail says against its objective, and how bad that is beside what other legs say: proven before high.
fn trailing(trail: &Trailing, limit: f64, unit: &'static str) -> Option<(f64, Finding)> {
    let judged = |share: Share| evidence(share.ratio(), limit, "ratio", (share.whole, unit));
    Some(match trail.against(limit, limit * CLEAR)? {
        Trail::Over(share, onset) => (1.0 + share.ratio(), Finding::Bad(judged(share), onset)),
        Trail::Under(share) if share.ratio() < limit * CLEAR => (share.ratio(), Finding::Good(judged(share))),
        Trail::Under(share) => (share.ratio(), Finding::Between),
    })
}

fn latency(now: Timestamp, objectives: &Objectives, live: &Live) -> Finding {
    let looks = live.legs().filter_map(|(_, leg)| {
        let (latencies, _) = leg.latest(now)?;
        Some((latencies.quantile_millis(0.95)?, latencies.len()))
    });
    looks.max().map_or(Finding::Unknown, |(millis, viewers)| {
        let size = (viewers as f64, "viewers");
        against(evidence(millis as f64 / 1e3, objectives.latency_seconds, "seconds", size), now)
    })
}

fn stream_down(now: Timestamp, live: &Live) -> Finding {
    let waiting = || live.viewers(now).values().copied().map(f64::from).sum::<f64>();
    match (live.publisher_state(now), live.away_since()) {
        (Some(true), _) => {
            Finding::Good(evidence(0.0, PUBLISHER_AWAY.as_secs_f64(), "seconds", (waiting(), "viewers")))
        }
        (Some(false), Some(since)) => {
            let (away, waiting) = (now.since(since), waiting());
            let evidence = evidence(away.as_secs_f64(), PUBLISHER_AWAY.as_secs_f64(), "seconds", (waiting, "viewers"));
            if away > PUBLISHER_AWAY && waiting > 0.0 { Finding::Bad(evidence, since) } else { Finding::Between }
        }
        _ => Finding::Unknown,
    }
}

fn fps(now: Timestamp, objectives: &Objectives, live: &Live) -> Finding {
    let (Some(fps), Some(declared)) = live.frame_rates(now) else {
        return Finding::Unknown;
    };
    let limit = declared * objectives.fps_ratio;
    let evidence = evidence(fps, limit, "frames a second", (1.0, "publisher"));
    match fps {
        fps if fps < limit => Finding::Bad(evidence, now),
        fps if fps < declared * (1.0 + objectives.fps_ratio) / 2.0 => Finding::Between,
        _ => Finding::Good(evidence),
    }
}

fn against(evidence: Evidence, since: Timestamp) -> Finding {
    match evidence.value {
        value if value > evidence.threshold => Finding::Bad(evidence, since),
        value if value > evidence.threshold * CLEAR => Finding::Between,
        _ => Finding::Good(evidence),
    }
}

/// The end of what still fires because its subject is no more: nothing newer was measured than what it fired on.
fn ended(condition: &Condition) -> Option<(NoticeState, Timestamp, Evidence)> {
    let (started_at, evidence) = condition.firing()?;
    Some((NoticeState::Resolved, started_at, evidence))
}

fn evidence(value: f64, threshold: f64, unit: &'static str, (size, size_unit): (f64, &'static str)) -> Evidence {
    Evidence { value, threshold, unit, size, size_unit }
}

fn notice(alert: Alert, subject: Subject, at: Timestamp, change: (NoticeState, Timestamp, Evidence)) -> Notice {
    let (state, started_at, evidence) = change;
    Notice { alert, subject, state, started_at, at, evidence, cause: Cause::Unknown }
}

/// Under a judgement of stutter lie 60 viewer-seconds at least: one freeze of 200 ms is then a third of one percent. A stall of a
/// viewer that does not come back counts as another one every 5 s.
const STUTTER_NEED: Need = Need { whole: 60.0, occurrence: 5.0, timed: true };
/// Under a judgement of loss lie 2,000 packets at least: ten lost ones at the objective of 0.5 %. Losses come in bursts: four count as
/// one occurrence.
const LOSS_NEED: Need = Need { whole: 2_000.0, occurrence: 4.0, timed: false };
/// Clear under this share of the objective.
const CLEAR: f64 = 0.7;
/// A publisher may be away for so long before anyone is told.
const PUBLISHER_AWAY: Duration = Duration::from_secs(5);
const TWO_OF_THREE: Rule = Rule { bad: 2, of: 3, clear_after: Duration::from_secs(5) };
const SIX_OF_EIGHT: Rule = Rule { bad: 6, of: 8, clear_after: Duration::from_secs(5) };
const SUSTAINED: Rule = Rule { bad: 24, of: 32, clear_after: Duration::from_secs(10) };
const AT_ONCE: Rule = Rule { bad: 1, of: 1, clear_after: Duration::ZERO };
