//! One class before the judge: its trails, its publisher, its conditions. Decides what a look finds in it; refuses to
//! judge on too little evidence and to take silence for health.

use std::sync::Arc;
use std::time::Duration;

use super::alert_state::{AlertState, AnnouncedCause};
use super::cause::{self, ClassSignals, NodeSignals};
use super::concentration::{concentration, tallies};
use super::evidence::{SURE, evidence, is_step};
use super::hysteresis::{Finding, Rule};
use super::latency_rules::latency;
use super::leg_rules::LegRules;
use super::notice::{because, notice};
use super::publisher_rules::PublisherRules;
use super::trend::Trend;
use crate::base::SmallMap;
use crate::model::{
    Alert, Cause, Evidence, Forecast, GroupKind, Notice, NoticeState, Objectives, Session, Subject, Timestamp,
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

/// An alert that changed at this look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) alert: Alert,
    pub(crate) state: NoticeState,
    pub(crate) onset: Timestamp,
    pub(crate) evidence: Evidence,
    pub(crate) forecast: Option<Forecast>,
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
        let firing = self.conditions.get(&Alert::LiveLatencyHigh).is_some_and(|held| held.condition.firing().is_some());
        let (latency_rule, latency) = latency(firing, now, objectives, live);
        let findings = [
            (Alert::LiveStutterHigh, Rule::PROVEN, self.legs.stutter(objectives)),
            (Alert::LivePacketLossHigh, Rule::PROVEN, self.legs.loss(objectives)),
            (Alert::LiveLatencyHigh, latency_rule, latency),
            (Alert::LiveStreamDown, Rule::AT_ONCE, stream_down(now, live)),
            (Alert::LiveFpsLow, Rule::SUSTAINED, self.fps(now, objectives, live)),
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

impl ClassAlerts {
    /// Whether what was told of this class may have to be told again now.
    pub(super) fn retells(&self, now: Timestamp) -> bool {
        now.nanos() % RETELL_EVERY.as_nanos() as u64 <= 250_000_000
            && self.conditions.values().any(|standing| standing.told.is_some())
    }

    /// The notice of a change.
    pub(super) fn tell(
        &mut self,
        now: Timestamp,
        change: Change,
        neighbours: &NodeSignals,
        (objectives, live): (&Objectives, &Live),
    ) -> Notice {
        let Change { alert, state, onset, evidence, forecast } = change;
        let subject = Subject::Session(Arc::clone(&self.session));
        let known = self.conditions.get_mut(&alert).and_then(|standing| standing.told.take());
        let found = match (forecast, state) {
            (Some(_), _) => {
                let own = self.own(now, onset, objectives, live);
                let backlog = own.backlog.map(|bytes| format!("{} kB wait in the node's kernel", bytes / 1_000));
                (Cause::Unknown, backlog.into_iter().collect())
            }
            (None, NoticeState::Firing) => {
                let own = self.own(now, onset, objectives, live);
                let (cause, why) = cause::of(alert, neighbours, &own);
                let why: Arc<[String]> = why.into();
                let told =
                    AnnouncedCause { at: now, cause, why: Arc::clone(&why), other: cause, looks: 0, silent: false };
                if let Some(standing) = self.conditions.get_mut(&alert) {
                    standing.told = Some(Box::new(told));
                }
                (cause, why)
            }
            (None, NoticeState::Resolved) => known.map(|told| (told.cause, told.why)).unwrap_or_default(),
        };
        Notice { forecast, ..because(notice(alert, subject, now, (state, onset, evidence)), found) }
    }

    /// Tells again what fires where its cause is known now, or where its evidence ended.
    pub(super) fn retell(
        &mut self,
        now: Timestamp,
        neighbours: &NodeSignals,
        (objectives, live): (&Objectives, &Live),
        out: &mut Vec<Notice>,
    ) {
        let firing = self.conditions.iter().filter_map(|(alert, standing)| {
            let (onset, evidence) = standing.condition.firing()?;
            Some((*alert, onset, evidence, standing.silent_since, standing.told.as_ref()?.at))
        });
        for (alert, onset, evidence, silent_since, told_at) in firing.collect::<Vec<_>>() {
            let silent = silent_since.filter(|since| now.since(*since) >= SILENT);
            let found = (silent.is_none() && now.since(told_at) <= RETELL_WITHIN && told_at < now)
                .then(|| cause::of(alert, neighbours, &self.own(now, onset, objectives, live)));
            let Some(told) = self.conditions.get_mut(&alert).and_then(|standing| standing.told.as_mut()) else {
                continue;
            };
            if told.is_news(silent, found) {
                let subject = Subject::Session(Arc::clone(&self.session));
                let change = (NoticeState::Firing, onset, evidence);
                let again = notice(alert, subject, now, change);
                out.push(Notice { retold: true, ..because(again, (told.cause, Arc::clone(&told.why))) });
            }
        }
    }
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

/// Latency under this share of its limit is not extrapolated.
const WATCHED: f64 = 0.4;
/// A warning ends after so many doubtful steps.
const DOUBTS: u8 = 6;
/// A warning of latency looks so far ahead, in seconds: queues grow fast or not at all.
const LATENCY_AHEAD: f64 = 180.0;
/// A publisher may be away for so long before anyone is told.
const PUBLISHER_AWAY: Duration = Duration::from_secs(5);
/// What fires is looked at again each second, for so long.
const RETELL_EVERY: Duration = Duration::from_secs(1);
const RETELL_WITHIN: Duration = Duration::from_mins(1);
/// An alert without evidence for so long is told to be unknown.
const SILENT: Duration = Duration::from_secs(15);
