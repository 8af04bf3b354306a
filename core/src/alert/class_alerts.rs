//! One class before the judge: its trails, its publisher, its conditions. Decides what a look finds in it; refuses to
//! judge on too little evidence and to take silence for health.

use std::sync::Arc;
use std::time::Duration;

use super::cause::ClassSignals;
use super::forecast::{SURE, is_step};
use super::hysteresis::{Finding, Hysteresis, Rule};
use super::leg_rules::LegRules;
use super::publisher_rules::PublisherRules;
use super::trend::Trend;
use crate::base::SmallMap;
use crate::model::group::concentration;
use crate::model::{
    Alert, Cause, Evidence, Forecast, Group, GroupKind, Incident, NoticeState, Objectives, Session, Tally, Timestamp,
};
use crate::session::Live;

/// What is remembered of one class.
#[derive(Clone, Debug)]
pub(crate) struct ClassAlerts {
    pub(crate) session: Arc<Session>,
    legs: LegRules,
    ingest: PublisherRules,
    trend: Trend,
    pub(crate) conditions: SmallMap<Alert, AlertState>,
    pub(crate) verdict: Verdict,
    /// Whether much is lost or late towards its viewers, where that is known.
    pub(crate) hampered: Option<bool>,
}

/// What the last look found on the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    #[default]
    Unknown,
    Well,
    Bad,
}

/// One alert of the class and what people were told of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlertState {
    pub(crate) condition: Hysteresis,
    pub(crate) told: Option<Box<AnnouncedCause>>,
    /// Since when it fires without evidence.
    pub(crate) silent_since: Option<Timestamp>,
    /// The warning that stands, and for how many steps its trend has been doubtful.
    pub(crate) forecast: Option<Box<(Forecast, u8)>>,
}

/// What people were told of a firing alert.
#[derive(Clone, Debug)]
pub(crate) struct AnnouncedCause {
    pub(crate) at: Timestamp,
    pub(crate) cause: Cause,
    pub(crate) why: Arc<[String]>,
    pub(crate) other: Cause,
    pub(crate) looks: u8,
    pub(crate) silent: bool,
}

/// An alert that changed at this look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) alert: Alert,
    pub(crate) state: NoticeState,
    pub(crate) onset: Timestamp,
    pub(crate) evidence: Evidence,
    pub(crate) forecast: Option<Forecast>,
}

impl AlertState {
    /// One that fired when the daemon went down.
    pub(crate) fn resumed(incident: &Incident) -> Self {
        let Incident { at, cause, .. } = *incident;
        let why = incident.why.iter().cloned().collect();
        Self {
            condition: Hysteresis::resumed(incident.started_at, incident.evidence()),
            told: Some(Box::new(AnnouncedCause { at, cause, why, other: cause, looks: 0, silent: false })),
            ..Self::default()
        }
    }

    /// Whether it holds nothing any more that a new one would not.
    fn is_over(&self, now: Timestamp) -> bool {
        self.told.is_none() && self.forecast.is_none() && self.condition.is_over(now)
    }
}

impl ClassAlerts {
    pub(crate) fn new(session: &Arc<Session>) -> Self {
        Self {
            session: Arc::clone(session),
            legs: LegRules::default(),
            ingest: PublisherRules::default(),
            trend: Trend::default(),
            conditions: SmallMap::new(),
            verdict: Verdict::Unknown,
            hampered: None,
        }
    }

    /// Looks at the class between two instants; what changed goes to `out`.
    pub(crate) fn look(
        &mut self,
        span: (Timestamp, Timestamp),
        objectives: &Objectives,
        live: &Live,
        out: &mut Vec<Change>,
    ) {
        let now = span.1;
        if !Arc::ptr_eq(&self.session, &live.session) {
            self.session = Arc::clone(&live.session);
        }
        self.legs.take(span, live);
        let suffers = self.suffers();
        self.ingest.look(now, live, suffers);
        let (latency_rule, latency) = self.latency(now, objectives, live);
        let findings = [
            (Alert::LiveStutterHigh, AT_ONCE_HELD, self.legs.stutter(objectives)),
            (Alert::LivePacketLossHigh, AT_ONCE_HELD, self.legs.loss(objectives)),
            (Alert::LiveLatencyHigh, latency_rule, latency),
            (Alert::LiveStreamDown, AT_ONCE, stream_down(now, live)),
            (Alert::LiveFpsLow, SUSTAINED, self.fps(now, objectives, live)),
        ];
        self.verdict = verdict(&findings);
        self.hampered = hampered(&findings);
        for (alert, rule, finding) in findings {
            self.step(now, (alert, rule), finding, out);
        }
        if is_step(span.0, now) {
            self.foresee(now, objectives, live, out);
        }
        if self.suffers() {
            self.legs.accuse(now);
        }
        self.conditions.forget(|_, held| held.is_over(now));
    }

    fn step(&mut self, now: Timestamp, (alert, rule): (Alert, Rule), finding: Finding, out: &mut Vec<Change>) {
        // To what holds nothing, health is no news: most classes keep no condition at all.
        if !matches!(finding, Finding::Bad(..)) && self.conditions.get(&alert).is_none() {
            return;
        }
        let standing = self.conditions.at(alert, AlertState::default);
        if let Some((state, onset, evidence)) = standing.condition.step(now, rule, finding) {
            standing.silent_since = None;
            // The breach takes the place of the warning.
            standing.forecast = None;
            out.push(Change { alert, state, onset, evidence, forecast: None });
        } else if standing.condition.firing().is_some() {
            let silent = finding == Finding::Unknown;
            standing.silent_since = if silent { standing.silent_since.or(Some(now)) } else { None };
        }
    }

    /// Whether viewers suffer by an alert that fires.
    fn suffers(&self) -> bool {
        let quality = [Alert::LiveStutterHigh, Alert::LivePacketLossHigh, Alert::LiveLatencyHigh, Alert::LiveFpsLow];
        let mut held = self.conditions.iter().filter(|(alert, _)| quality.contains(alert));
        held.any(|(_, held)| held.condition.firing().is_some())
    }

    /// The worst leg's latency, and how long it must hold: the fewer viewers speak for it, the longer.
    fn latency(&self, now: Timestamp, objectives: &Objectives, live: &Live) -> (Rule, Finding) {
        let held = self.conditions.get(&Alert::LiveLatencyHigh);
        let firing = held.is_some_and(|held| held.condition.firing().is_some());
        let mut found: Option<(u64, Rule, Finding)> = None;
        for (protocol, leg) in live.legs() {
            let Some((latencies, _)) = leg.latest(now) else { continue };
            let limit = objectives.of(protocol).latency;
            let viewers = latencies.len();
            // The 95th percentile is over a bar when more than these are.
            let allowed = viewers - (viewers as f64 * 0.95).ceil() as u64;
            let late = latencies.count_over((limit * 1e3) as u64);
            let evidence = || {
                let p95 = latencies.quantile_millis(0.95).unwrap_or_default() as f64 / 1e3;
                evidence(p95, limit, "seconds", (viewers as f64, "viewers"))
            };
            let (rule, finding) = if late > allowed {
                let bad = evidence();
                (held_for(late, bad.value > 2.0 * limit), Finding::Bad(bad, now))
            } else if latencies.count_over((limit * CLEAR * 1e3) as u64) > allowed {
                (held_for(1, false), Finding::Between)
            } else {
                (held_for(1, false), if firing { Finding::Good(evidence()) } else { Finding::Calm })
            };
            let rank = match finding {
                Finding::Bad(..) => 2 + late,
                Finding::Between => 1,
                _ => 0,
            };
            if found.as_ref().is_none_or(|(known, ..)| rank > *known) {
                found = Some((rank, rule, finding));
            }
        }
        found.map_or((SUSTAINED, Finding::Unknown), |(_, rule, finding)| (rule, finding))
    }

    fn fps(&self, now: Timestamp, objectives: &Objectives, live: &Live) -> Finding {
        let (Some(pace), Some(_)) = (self.ingest.pace(live.declared_fps(now)), live.publishing(now)) else {
            return Finding::Unknown;
        };
        let limit = pace.usual * objectives.fps_ratio;
        let evidence = evidence(pace.now, limit, "frames a second", (1.0, "publisher"));
        match pace.now {
            fps if fps < limit && !pace.chosen => Finding::Bad(evidence, now),
            fps if fps < pace.usual * f64::midpoint(1.0, objectives.fps_ratio) && !pace.chosen => Finding::Between,
            _ => Finding::Good(evidence),
        }
    }

    /// Whether latency is about to pass its limit, by its trend.
    fn foresee(&mut self, now: Timestamp, objectives: &Objectives, live: &Live, out: &mut Vec<Change>) {
        let worst = live.legs().filter_map(|(protocol, leg)| {
            let (latencies, _) = leg.latest(now)?;
            let limit = objectives.of(protocol).latency;
            Some((latencies.quantile_millis(0.95)? as f64 / 1e3, limit, latencies.len()))
        });
        let Some((level, limit, viewers)) = worst.max_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1))) else {
            self.trend.add(None);
            return;
        };
        self.trend.add(Some(level));
        let fires = self.suffers();
        let warned = self.conditions.get(&Alert::LiveLatencyHigh).is_some_and(|held| held.forecast.is_some());
        // A look whether it may be likely costs little; only a warning that stands needs to know how unlikely it is.
        let wanted = !fires && level >= limit * WATCHED;
        let wanted = wanted && (warned || self.trend.may_reach(limit, LATENCY_AHEAD));
        let forecast = if wanted { self.trend.reaches(limit, LATENCY_AHEAD) } else { None };
        let evidence = evidence(level, limit, "seconds", (viewers as f64, "viewers"));
        self.warn(now, forecast.filter(|_| !fires), evidence, out);
    }

    /// A warning begins when it is sure, and ends when it was doubtful for half a minute.
    fn warn(&mut self, now: Timestamp, forecast: Option<Forecast>, evidence: Evidence, out: &mut Vec<Change>) {
        let alert = Alert::LiveLatencyHigh;
        let sure = forecast.filter(|forecast| forecast.confidence >= SURE);
        let doubtful = forecast.is_none_or(|forecast| forecast.confidence < SURE / 2.0);
        if sure.is_none() && self.conditions.get(&alert).is_none() {
            return;
        }
        let standing = self.conditions.at(alert, AlertState::default);
        match (&mut standing.forecast, sure) {
            (None, Some(forecast)) => {
                standing.forecast = Some(Box::new((forecast, 0)));
                let (state, forecast) = (NoticeState::Firing, Some(forecast));
                out.push(Change { alert, state, onset: now, evidence, forecast });
            }
            (Some(held), _) => {
                held.1 = if doubtful { held.1 + 1 } else { 0 };
                if held.1 >= DOUBTS {
                    let forecast = standing.forecast.take().map(|held| held.0);
                    out.push(Change { alert, state: NoticeState::Resolved, onset: now, evidence, forecast });
                }
            }
            (None, None) => {}
        }
    }

    /// Whether the publisher is in trouble now.
    pub(crate) fn is_troubled(&self, now: Timestamp, live: &Live) -> bool {
        self.ingest.is_troubled() || live.publisher_state(now) == Some(false)
    }

    /// What is known of the class, for the cause of a fault since `onset`.
    pub(crate) fn own(&self, now: Timestamp, onset: Timestamp, objectives: &Objectives, live: &Live) -> ClassSignals {
        let mut own = ClassSignals {
            lasts: now.since(onset),
            counted: self.verdict == Verdict::Bad,
            hampered: self.hampered,
            trouble: self.ingest.trouble(),
            health: self.ingest.health(),
            ..ClassSignals::default()
        };
        // Who went after the fault began did not make it.
        let went = live.away_since().is_some_and(|away| away <= onset + Duration::from_secs(1));
        if went && live.publisher_state(now) == Some(false) {
            own.trouble.get_or_insert_with(|| "nobody publishes".to_owned());
        }
        for (protocol, leg) in live.legs() {
            let promise = objectives.of(protocol);
            if let Some((latencies, _)) = leg.latest(now) {
                let p95 = latencies.quantile_millis(0.95).unwrap_or_default() as f64 / 1e3;
                let late = latencies.count_over((promise.latency * 1e3) as u64);
                if own.latency.is_none_or(|(known, limit, ..)| p95 / promise.latency > known / limit) {
                    own.latency = Some((p95, promise.latency, late, latencies.len()));
                }
            }
            if let Some(bytes) = leg.backlog_bytes(now) {
                own.backlog = Some(own.backlog.unwrap_or(0).saturating_add(bytes));
            }
            self.legs.own(protocol, objectives, &mut own);
        }
        let found = |kind| concentration(tallies(live, kind), objectives.stutter_ratio);
        let places = [GroupKind::Network, GroupKind::Region].into_iter().filter_map(found);
        own.place = places.min_by_key(|place| place.groups.0);
        own.player = found(GroupKind::Player);
        own
    }
}

/// The groups of all legs of one kind, summed.
fn tallies(live: &Live, kind: GroupKind) -> Vec<(Group, Tally)> {
    let mut sums: SmallMap<Group, Tally> = SmallMap::new();
    for groups in live.legs().filter_map(|(_, leg)| leg.groups()) {
        for (group, tally) in groups.iter().filter(|(group, _)| group.kind() == kind) {
            sums.at(group.clone(), Tally::default).add(*tally);
        }
    }
    sums.into_iter().collect()
}

/// Bad where viewers suffer, well where anything shows that they do not.
fn verdict(findings: &[(Alert, Rule, Finding); 5]) -> Verdict {
    let quality = || findings.iter().take(4).map(|(.., finding)| *finding);
    if quality().any(|finding| matches!(finding, Finding::Bad(..))) {
        return Verdict::Bad;
    }
    let known = findings.iter().take(3).any(|(.., finding)| *finding != Finding::Unknown);
    if known { Verdict::Well } else { Verdict::Unknown }
}

/// Whether loss or latency are over their limits; known not to be only where loss is known.
fn hampered(findings: &[(Alert, Rule, Finding); 5]) -> Option<bool> {
    let [_, (.., loss), (.., latency), ..] = findings;
    let bad = |finding: &Finding| matches!(finding, Finding::Bad(..));
    let known = *loss != Finding::Unknown;
    (bad(loss) || bad(latency) || known).then(|| bad(loss) || bad(latency))
}

/// How long a latency over its limit must hold: one viewer speaks for itself only, many that are far over it for the
/// class at once.
const fn held_for(late: u64, far: bool) -> Rule {
    let (bad, of) = match late {
        0 | 1 => (24, 32),
        2..=4 => (6, 8),
        _ if far => (3, 4),
        _ => (4, 5),
    };
    Rule { bad, of, clear_after: Duration::from_secs(5) }
}

fn stream_down(now: Timestamp, live: &Live) -> Finding {
    let waiting = || live.viewers(now).values().copied().map(f64::from).sum::<f64>();
    match (live.publisher_state(now), live.away_since()) {
        (Some(true), _) => Finding::Good(evidence(0.0, PUBLISHER_AWAY.as_secs_f64(), "seconds", (0.0, "viewers"))),
        (Some(false), Some(since)) => {
            let (away, waiting) = (now.since(since), waiting());
            let evidence = evidence(away.as_secs_f64(), PUBLISHER_AWAY.as_secs_f64(), "seconds", (waiting, "viewers"));
            if away > PUBLISHER_AWAY && waiting > 0.0 { Finding::Bad(evidence, since) } else { Finding::Between }
        }
        _ => Finding::Unknown,
    }
}

/// What a level says against its limit.
pub(crate) fn against(evidence: Evidence, since: Timestamp) -> Finding {
    match evidence.value {
        value if value > evidence.threshold => Finding::Bad(evidence, since),
        value if value > evidence.threshold * CLEAR => Finding::Between,
        _ => Finding::Good(evidence),
    }
}

pub(crate) fn evidence(
    value: f64,
    threshold: f64,
    unit: &'static str,
    (size, size_unit): (f64, &'static str),
) -> Evidence {
    Evidence { value, threshold, unit, size, size_unit }
}

/// Clear under this share of the objective.
pub(crate) const CLEAR: f64 = 0.7;
/// Latency under this share of its limit is not extrapolated.
const WATCHED: f64 = 0.4;
/// A warning ends after so many doubtful steps.
const DOUBTS: u8 = 6;
/// A warning of latency looks so far ahead, in seconds: queues grow fast or not at all.
const LATENCY_AHEAD: f64 = 180.0;
/// A publisher may be away for so long before anyone is told.
const PUBLISHER_AWAY: Duration = Duration::from_secs(5);
/// What is proven needs no second look; it clears after 5 s.
const AT_ONCE_HELD: Rule = Rule { bad: 1, of: 1, clear_after: Duration::from_secs(5) };
pub(crate) const SUSTAINED: Rule = Rule { bad: 24, of: 32, clear_after: Duration::from_secs(10) };
pub(crate) const AT_ONCE: Rule = Rule { bad: 1, of: 1, clear_after: Duration::ZERO };
