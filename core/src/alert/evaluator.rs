//! Which alerts fire, and why. Decides at every tick, from the folded totals, whether an objective is broken or kept
//! again and where the fault lies; missing data is never taken for health.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::alert_state::AlertState;
use super::cause::{self, NodeSignals};
use super::class_alerts::{ClassAlerts, Verdict};
use super::evidence::{against, evidence, is_step};
use super::forecast::{Capacity, LOADS, NodeForecast};
use super::hysteresis::{Finding, Hysteresis, Rule};
use super::notice::{because, ended, notice};
use super::path_rules::PathRules;
use crate::model::{
    Alert, Cause, Closed, Environment, Incident, Name, Notice, NoticeState, Objectives, Session, SourceName, Subject,
    Timestamp,
};
use crate::session::Registry;

/// The state of all alerts of the node.
#[derive(Clone, Debug, Default)]
pub struct AlertEvaluator {
    sessions: BTreeMap<Name, Box<ClassAlerts>>,
    sources: BTreeMap<SourceName, Hysteresis>,
    paths: BTreeMap<Arc<str>, PathRules>,
    node: Hysteresis,
    forecast: NodeForecast,
    /// The most used resource of the last seconds, and when it was measured.
    load: Option<(&'static str, f64, Timestamp)>,
    last_evaluation: Option<Timestamp>,
}

impl AlertEvaluator {
    /// Evaluates all classes, sources, paths and the node once; gives the notices of what changed.
    pub fn evaluate(
        &mut self,
        now: Timestamp,
        objectives: &Objectives,
        registry: &Registry,
        environment: &Environment,
    ) -> Vec<Notice> {
        let before = self.last_evaluation.replace(now).unwrap_or(now);
        let mut notices = Vec::new();
        self.evaluate_node(now, objectives, environment, &mut notices);
        if is_step(before, now) {
            notices.extend(self.forecast_node(now, objectives, registry, environment));
        }
        let (mut changes, mut changed) = (Vec::new(), Vec::new());
        let mut signals = self.signals(now);
        self.add_new(registry);
        // Both are in the order of their ids, so each look-up is one step.
        let mut classes = self.sessions.values_mut();
        for live in registry.sessions() {
            let Some(class) = classes.find(|class| class.session.id == live.session.id) else { break };
            class.evaluate((before, now), objectives, live, &mut changes);
            signals.judged += u32::from(class.verdict != Verdict::Unknown);
            let bad = class.verdict == Verdict::Bad;
            signals.bad += u32::from(bad);
            signals.network_impaired += u32::from(bad && class.network_impaired == Some(true));
            signals.network_clean += u32::from(bad && class.network_impaired == Some(false));
            signals.publisher_impaired += u32::from(class.is_publisher_impaired(now, live));
            if !changes.is_empty() || class.may_renotify(now) {
                changed.push((live, std::mem::take(&mut changes)));
            }
        }
        for (live, changes) in changed {
            if let Some(class) = self.sessions.get_mut(&live.session.id) {
                for change in changes {
                    notices.push(class.announce(now, change, &signals, (objectives, live)));
                }
                class.renotify(now, &signals, (objectives, live), &mut notices);
            }
        }
        notices
    }

    /// Adds the classes that are not known yet.
    fn add_new(&mut self, registry: &Registry) {
        let mut known = self.sessions.keys();
        // After the first unknown one all count as new; those that are known stay as they are.
        let new: Vec<_> = registry.sessions().filter(|live| !known.any(|id| *id == live.session.id)).collect();
        for live in new {
            self.sessions.entry(live.session.id.clone()).or_insert_with(|| Box::new(ClassAlerts::new(&live.session)));
        }
    }

    /// Restores the alerts that were firing on `session` when the daemon stopped.
    pub(crate) fn resume(&mut self, session: &Arc<Session>, incidents: &[Incident]) {
        if incidents.is_empty() {
            return;
        }
        let class = self.sessions.entry(session.id.clone()).or_insert_with(|| Box::new(ClassAlerts::new(session)));
        for incident in incidents {
            let entry = || AlertState::resumed(incident);
            class.alerts.at(incident.alert, entry);
        }
    }

    /// Resolves what is still firing on sessions that closed, with the evidence it fired on: there is no newer one.
    pub fn close(&mut self, closed: &[Closed]) -> Vec<Notice> {
        let mut notices = Vec::new();
        for closed in closed {
            let Some(class) = self.sessions.remove(&closed.session.id) else {
                continue;
            };
            for (alert, entry) in class.alerts {
                if let Some(change) = ended(&entry.hysteresis) {
                    let subject = Subject::Session(Arc::clone(&closed.session));
                    let cause = entry.announced.map(|last| (last.cause, last.why));
                    notices.push(because(notice(alert, subject, closed.at, change), cause.unwrap_or_default()));
                } else if let Some(forecast) = entry.forecast {
                    let subject = Subject::Session(Arc::clone(&closed.session));
                    let nothing = evidence(0.0, 0.0, "seconds", (0.0, "viewers"));
                    let change = (NoticeState::Resolved, closed.at, nothing);
                    let forecast = Some(forecast.0);
                    notices.push(Notice { forecast, ..notice(alert, subject, closed.at, change) });
                }
            }
        }
        notices
    }

    /// How many more viewers the node can carry, by the present cost per viewer; `None` while load or audience is
    /// unknown or too small.
    #[must_use]
    pub fn capacity(&self, objectives: &Objectives) -> Option<Capacity> {
        self.forecast.capacity(objectives.load_ratio)
    }

    /// What is known beside the classes: the load of the last seconds and a degraded path.
    fn signals(&self, now: Timestamp) -> NodeSignals {
        let load = self.load.filter(|(.., at)| now.since(*at) <= LOAD_HELD).map(|(what, ratio, _)| (what, ratio));
        // A path with a firing alert comes before one that is only silent.
        let paths =
            |firing: bool| self.paths.iter().filter(move |(_, path)| path.hysteresis.firing().is_some() == firing);
        let path = paths(true).chain(paths(false)).find_map(|(peer, path)| path.fault(peer, now));
        NodeSignals { load, path, ..NodeSignals::default() }
    }

    fn evaluate_node(
        &mut self,
        now: Timestamp,
        objectives: &Objectives,
        environment: &Environment,
        out: &mut Vec<Notice>,
    ) {
        let parts = environment.node.parts();
        let loads = LOADS.iter().zip(parts).filter_map(|(name, ratio)| Some((*name, ratio?)));
        let fullest = loads.max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((name, ratio)) = fullest
            && self.load.is_none_or(|(_, known, at)| ratio >= known || now.since(at) > LOAD_HELD)
        {
            self.load = Some((name, ratio, now));
        }
        self.evaluate_sources(now, environment, out);
        self.evaluate_paths(now, objectives, environment, out);
        let finding = fullest.map_or(Finding::Unknown, |(_, ratio)| {
            against(evidence(ratio, objectives.load_ratio, "ratio", (1.0, "node")), now)
        });
        if let Some(change) = self.node.step(now, Rule::SUSTAINED, finding) {
            if change.0 == NoticeState::Firing {
                self.forecast.cancel();
            }
            let why = fullest.map(|(name, ratio)| format!("{name} {:.0} % in use", ratio * 100.0));
            let left = self.capacity(objectives);
            let left =
                left.map(|left| format!("{:.0} viewers, room for {:.0} more", left.viewers, left.additional_viewers));
            let found = (Cause::Node, why.into_iter().chain(left).collect());
            out.push(because(notice(Alert::LiveNodeOverloaded, Subject::Node, now, change), found));
        }
    }

    fn evaluate_sources(&mut self, now: Timestamp, environment: &Environment, out: &mut Vec<Notice>) {
        let left_out = |source: &SourceName| !environment.sources.iter().any(|(known, _)| known == source);
        for (source, hysteresis) in self.sources.extract_if(.., |source, _| left_out(source)) {
            if let Some(change) = ended(&hysteresis) {
                out.push(notice(Alert::LiveSourceDown, Subject::Source(source), now, change));
            }
        }
        let silent = environment.sources.iter().filter(|(_, silent)| silent.is_some()).count();
        for (source, silent_since) in &environment.sources {
            let seconds = silent_since.map_or(0.0, |since| now.since(since).as_secs_f64());
            let evidence = evidence(seconds, 0.0, "seconds", (seconds, "seconds"));
            let finding = silent_since.map_or(Finding::Good(evidence), |since| Finding::Bad(evidence, since));
            let hysteresis = self.sources.entry(source.clone()).or_default();
            if let Some(change) = hysteresis.step(now, Rule::AT_ONCE, finding) {
                let loaded = self.load.is_some_and(|(_, ratio, _)| ratio >= cause::LOADED);
                let text =
                    format!("{silent} of {} sources are silent; what they watch is unknown", environment.sources.len());
                let found = (if loaded { Cause::Node } else { Cause::Unknown }, [text].into());
                out.push(because(notice(Alert::LiveSourceDown, Subject::Source(source.clone()), now, change), found));
            }
        }
    }

    fn evaluate_paths(
        &mut self,
        now: Timestamp,
        objectives: &Objectives,
        environment: &Environment,
        out: &mut Vec<Notice>,
    ) {
        let left_out = |peer: &Arc<str>| !environment.paths.iter().any(|report| report.peer == *peer);
        for (peer, path) in self.paths.extract_if(.., |peer, _| left_out(peer)) {
            if let Some(change) = ended(&path.hysteresis) {
                out.push(notice(Alert::LivePathDegraded, Subject::Peer(peer), now, change));
            }
        }
        for report in &environment.paths {
            let path = self.paths.entry(Arc::clone(&report.peer)).or_insert_with(PathRules::new);
            let finding = path.evaluate(now, report, objectives.loss_ratio);
            if let Some(change) = path.hysteresis.step(now, PATH_HELD, finding) {
                let subject = Subject::Peer(Arc::clone(&report.peer));
                let found = (Cause::EdgePath, Arc::from(Vec::new()));
                out.push(because(notice(Alert::LivePathDegraded, subject, now, change), found));
            }
        }
    }

    fn forecast_node(
        &mut self,
        now: Timestamp,
        objectives: &Objectives,
        registry: &Registry,
        environment: &Environment,
    ) -> Option<Notice> {
        let measured = |leg: &crate::session::LiveLeg| u64::from(leg.measured_viewers(now));
        let viewers = registry.sessions().map(|live| {
            let counted: u64 = live.viewers(now).values().map(|count| u64::from(*count)).sum();
            counted.max(live.legs().map(|(_, leg)| measured(leg)).sum())
        });
        let viewers = viewers.reduce(u64::saturating_add).map(|viewers| viewers as f64);
        let notice = self.forecast.evaluate(now, &environment.node, viewers, objectives);
        notice.filter(|_| self.node.firing().is_none())
    }
}

/// A path is degraded after two of three seconds over the limit; its round trip is smoothed already.
const PATH_HELD: Rule = Rule { bad: 8, of: 12, clear_after: Duration::from_secs(10) };
/// How long a peak of load counts: classes are impaired a moment after it.
const LOAD_HELD: Duration = Duration::from_secs(8);
