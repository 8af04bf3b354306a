//! The alerts of one class. Decides what an evaluation finds in its legs and its publisher; neither judges on too
//! little evidence nor takes missing data for health.

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
    publisher: PublisherRules,
    trend: Trend,
    pub(crate) alerts: SmallMap<Alert, AlertState>,
    pub(crate) verdict: Verdict,
    /// Whether loss or latency is over the limit; `None` where that is not known.
    pub(crate) network_impaired: Option<bool>,
}

/// What the last evaluation found overall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    #[default]
    Unknown,
    Good,
    Bad,
}

/// An alert that changed in this evaluation.
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
            publisher: PublisherRules::default(),
            trend: Trend::default(),
            alerts: SmallMap::new(),
            verdict: Verdict::Unknown,
            network_impaired: None,
        }
    }

    /// Evaluates the class over a span of time; changes go to `out`.
    pub(crate) fn evaluate(
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
        let is_impaired = self.is_impaired();
        self.publisher.evaluate(now, live, is_impaired);
        let firing = self.alerts.get(&Alert::LiveLatencyHigh).is_some_and(|held| held.hysteresis.firing().is_some());
        let (latency_rule, latency) = latency(firing, now, objectives, live);
        let findings = [
            (Alert::LiveStutterHigh, Rule::PROVEN, self.legs.stutter(objectives)),
            (Alert::LivePacketLossHigh, Rule::PROVEN, self.legs.loss(objectives)),
            (Alert::LiveLatencyHigh, latency_rule, latency),
            (Alert::LiveStreamDown, Rule::AT_ONCE, stream_down(now, live)),
            (Alert::LiveFpsLow, Rule::SUSTAINED, self.fps(now, objectives, live)),
        ];
        self.verdict = verdict(&findings);
        self.network_impaired = network_impaired(&findings);
        for (alert, rule, finding) in findings {
            self.step(now, (alert, rule), finding, out);
        }
        if is_step(span.0, now) {
            self.forecast_latency(now, objectives, live, out);
        }
        if self.is_impaired() {
            self.legs.exclude_from_baseline(now);
        }
        self.alerts.forget(|_, held| held.is_over(now));
    }

    fn step(&mut self, now: Timestamp, (alert, rule): (Alert, Rule), finding: Finding, out: &mut Vec<Change>) {
        // A healthy finding changes nothing where no alert is kept, as for most classes.
        if !matches!(finding, Finding::Bad(..)) && self.alerts.get(&alert).is_none() {
            return;
        }
        let entry = self.alerts.at(alert, AlertState::default);
        if let Some((state, onset, evidence)) = entry.hysteresis.step(now, rule, finding) {
            entry.silent_since = None;
            // The alert replaces the warning.
            entry.forecast = None;
            out.push(Change { alert, state, onset, evidence, forecast: None });
        } else if entry.hysteresis.firing().is_some() {
            let silent = finding == Finding::Unknown;
            entry.silent_since = if silent { entry.silent_since.or(Some(now)) } else { None };
        }
    }

    /// Whether an alert on the viewers' quality is firing.
    fn is_impaired(&self) -> bool {
        let quality = [Alert::LiveStutterHigh, Alert::LivePacketLossHigh, Alert::LiveLatencyHigh, Alert::LiveFpsLow];
        let mut held = self.alerts.iter().filter(|(alert, _)| quality.contains(alert));
        held.any(|(_, held)| held.hysteresis.firing().is_some())
    }

    fn fps(&self, now: Timestamp, objectives: &Objectives, live: &Live) -> Finding {
        let (Some(rate), Some(_)) = (self.publisher.frame_rate(live.declared_fps(now)), live.publishing(now)) else {
            return Finding::Unknown;
        };
        let limit = rate.baseline * objectives.fps_ratio;
        let evidence = evidence(rate.now, limit, "frames a second", (1.0, "publisher"));
        match rate.now {
            fps if fps < limit && !rate.intended => Finding::Bad(evidence, now),
            fps if fps < rate.baseline * f64::midpoint(1.0, objectives.fps_ratio) && !rate.intended => Finding::Between,
            _ => Finding::Good(evidence),
        }
    }

    /// Whether latency will soon pass its limit, by its trend.
    fn forecast_latency(&mut self, now: Timestamp, objectives: &Objectives, live: &Live, out: &mut Vec<Change>) {
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
        let fires = self.is_impaired();
        let warned = self.alerts.get(&Alert::LiveLatencyHigh).is_some_and(|held| held.forecast.is_some());
        // The cheap check whether a breach may be likely comes first; only an active warning needs the exact
        // confidence.
        let wanted = !fires && level >= limit * WATCHED;
        let wanted = wanted && (warned || self.trend.may_reach(limit, LATENCY_AHEAD));
        let forecast = if wanted { self.trend.reaches(limit, LATENCY_AHEAD) } else { None };
        let evidence = evidence(level, limit, "seconds", (viewers as f64, "viewers"));
        self.warn(now, forecast.filter(|_| !fires), evidence, out);
    }

    /// A warning begins when it is confident, and ends after half a minute of doubt.
    fn warn(&mut self, now: Timestamp, forecast: Option<Forecast>, evidence: Evidence, out: &mut Vec<Change>) {
        let alert = Alert::LiveLatencyHigh;
        let sure = forecast.filter(|forecast| forecast.confidence >= SURE);
        let doubtful = forecast.is_none_or(|forecast| forecast.confidence < SURE / 2.0);
        if sure.is_none() && self.alerts.get(&alert).is_none() {
            return;
        }
        let entry = self.alerts.at(alert, AlertState::default);
        match (&mut entry.forecast, sure) {
            (None, Some(forecast)) => {
                entry.forecast = Some(Box::new((forecast, 0)));
                let (state, forecast) = (NoticeState::Firing, Some(forecast));
                out.push(Change { alert, state, onset: now, evidence, forecast });
            }
            (Some(held), _) => {
                held.1 = if doubtful { held.1 + 1 } else { 0 };
                if held.1 >= DOUBTS {
                    let forecast = entry.forecast.take().map(|held| held.0);
                    out.push(Change { alert, state: NoticeState::Resolved, onset: now, evidence, forecast });
                }
            }
            (None, None) => {}
        }
    }

    /// Whether the publisher is impaired now.
    pub(crate) fn is_publisher_impaired(&self, now: Timestamp, live: &Live) -> bool {
        self.publisher.is_impaired() || live.publisher_state(now) == Some(false)
    }

    /// What is known about the class, to find the cause of a fault that began at `onset`.
    pub(crate) fn signals(
        &self,
        now: Timestamp,
        onset: Timestamp,
        objectives: &Objectives,
        live: &Live,
    ) -> ClassSignals {
        let mut signals = ClassSignals {
            duration: now.since(onset),
            counted_bad: self.verdict == Verdict::Bad,
            network_impaired: self.network_impaired,
            publisher_fault: self.publisher.fault(),
            publisher_healthy: self.publisher.healthy(),
            ..ClassSignals::default()
        };
        // A publisher that left after the fault began did not cause it.
        let went = live.away_since().is_some_and(|away| away <= onset + Duration::from_secs(1));
        if went && live.publisher_state(now) == Some(false) {
            signals.publisher_fault.get_or_insert_with(|| "nobody publishes".to_owned());
        }
        for (protocol, leg) in live.legs() {
            let promise = objectives.of(protocol);
            if let Some((latencies, _)) = leg.latest(now) {
                let p95 = latencies.quantile_millis(0.95).unwrap_or_default() as f64 / 1e3;
                let late = latencies.count_over((promise.latency * 1e3) as u64);
                if signals.latency.is_none_or(|(known, limit, ..)| p95 / promise.latency > known / limit) {
                    signals.latency = Some((p95, promise.latency, late, latencies.len()));
                }
            }
            if let Some(bytes) = leg.backlog_bytes(now) {
                signals.backlog = Some(signals.backlog.unwrap_or(0).saturating_add(bytes));
            }
            self.legs.add_signals(protocol, objectives, &mut signals);
        }
        let found = |kind| concentration(tallies(live, kind), objectives.stutter_ratio);
        let places = [GroupKind::Network, GroupKind::Region].into_iter().filter_map(found);
        signals.place = places.min_by_key(|place| place.groups.0);
        signals.player = found(GroupKind::Player);
        signals
    }

    /// Whether a notice may have to be sent again at this evaluation.
    pub(super) fn may_renotify(&self, now: Timestamp) -> bool {
        now.nanos() % RENOTIFY_INTERVAL.as_nanos() as u64 <= 250_000_000
            && self.alerts.values().any(|entry| entry.announced.is_some())
    }

    /// The notice of a change.
    pub(super) fn announce(
        &mut self,
        now: Timestamp,
        change: Change,
        node: &NodeSignals,
        (objectives, live): (&Objectives, &Live),
    ) -> Notice {
        let Change { alert, state, onset, evidence, forecast } = change;
        let subject = Subject::Session(Arc::clone(&self.session));
        let known = self.alerts.get_mut(&alert).and_then(|entry| entry.announced.take());
        let found = match (forecast, state) {
            (Some(_), _) => {
                let signals = self.signals(now, onset, objectives, live);
                let backlog = signals.backlog.map(|bytes| format!("{} kB wait in the node's kernel", bytes / 1_000));
                (Cause::Unknown, backlog.into_iter().collect())
            }
            (None, NoticeState::Firing) => {
                let signals = self.signals(now, onset, objectives, live);
                let (cause, why) = cause::of(alert, node, &signals);
                let why: Arc<[String]> = why.into();
                let announced = AnnouncedCause {
                    at: now,
                    cause,
                    why: Arc::clone(&why),
                    other: cause,
                    consistent_findings: 0,
                    silent: false,
                };
                if let Some(entry) = self.alerts.get_mut(&alert) {
                    entry.announced = Some(Box::new(announced));
                }
                (cause, why)
            }
            (None, NoticeState::Resolved) => known.map(|last| (last.cause, last.why)).unwrap_or_default(),
        };
        Notice { forecast, ..because(notice(alert, subject, now, (state, onset, evidence)), found) }
    }

    /// Sends another notice of a firing alert where its cause is known now, or where its evidence ended.
    pub(super) fn renotify(
        &mut self,
        now: Timestamp,
        node: &NodeSignals,
        (objectives, live): (&Objectives, &Live),
        out: &mut Vec<Notice>,
    ) {
        let firing = self.alerts.iter().filter_map(|(alert, entry)| {
            let (onset, evidence) = entry.hysteresis.firing()?;
            Some((*alert, onset, evidence, entry.silent_since, entry.announced.as_ref()?.at))
        });
        for (alert, onset, evidence, silent_since, announced_at) in firing.collect::<Vec<_>>() {
            let silent = silent_since.filter(|since| now.since(*since) >= SILENT);
            let found = (silent.is_none() && now.since(announced_at) <= RENOTIFY_WITHIN && announced_at < now)
                .then(|| cause::of(alert, node, &self.signals(now, onset, objectives, live)));
            let Some(last) = self.alerts.get_mut(&alert).and_then(|entry| entry.announced.as_mut()) else {
                continue;
            };
            if last.learn(silent, found) {
                let subject = Subject::Session(Arc::clone(&self.session));
                let change = (NoticeState::Firing, onset, evidence);
                let again = notice(alert, subject, now, change);
                out.push(Notice { renotified: true, ..because(again, (last.cause, Arc::clone(&last.why))) });
            }
        }
    }
}

/// Bad where viewers are impaired, good where anything shows that they are not.
fn verdict(findings: &[(Alert, Rule, Finding); 5]) -> Verdict {
    let quality = || findings.iter().take(4).map(|(.., finding)| *finding);
    if quality().any(|finding| matches!(finding, Finding::Bad(..))) {
        return Verdict::Bad;
    }
    let known = findings.iter().take(3).any(|(.., finding)| *finding != Finding::Unknown);
    if known { Verdict::Good } else { Verdict::Unknown }
}

/// Whether loss or latency is over its limit; `Some(false)` only where loss is known.
fn network_impaired(findings: &[(Alert, Rule, Finding); 5]) -> Option<bool> {
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
/// A warning ends after this number of doubtful steps.
const DOUBTS: u8 = 6;
/// Horizon of a latency warning, in seconds: queues grow fast or not at all.
const LATENCY_AHEAD: f64 = 180.0;
/// How long a publisher may be away before an alert.
const PUBLISHER_AWAY: Duration = Duration::from_secs(5);
/// A firing alert is examined again at this interval, for this long.
const RENOTIFY_INTERVAL: Duration = Duration::from_secs(1);
const RENOTIFY_WITHIN: Duration = Duration::from_mins(1);
/// An alert without evidence for this long is reported as unknown.
const SILENT: Duration = Duration::from_secs(15);
