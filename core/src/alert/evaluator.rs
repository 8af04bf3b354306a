//! Whether people must be told, and why. Decides at every tick, from the folded totals, whether an objective is broken
//! or kept again and where the fault lies; refuses to take silence for health.

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

/// The judge's memory.
#[derive(Clone, Debug, Default)]
pub struct AlertEvaluator {
    sessions: BTreeMap<Name, Box<ClassAlerts>>,
    sources: BTreeMap<SourceName, Hysteresis>,
    paths: BTreeMap<Arc<str>, PathRules>,
    node: Hysteresis,
    forecast: NodeForecast,
    /// The fullest resource of the last seconds.
    load: Option<(&'static str, f64, Timestamp)>,
    last_look: Option<Timestamp>,
}

impl AlertEvaluator {
    /// Looks at everything once.
    pub fn look(
        &mut self,
        now: Timestamp,
        objectives: &Objectives,
        registry: &Registry,
        around: &Environment,
    ) -> Vec<Notice> {
        let before = self.last_look.replace(now).unwrap_or(now);
        let mut notices = Vec::new();
        self.look_around(now, objectives, around, &mut notices);
        if is_step(before, now) {
            notices.extend(self.look_ahead(now, objectives, registry, around));
        }
        let (mut changes, mut changed) = (Vec::new(), Vec::new());
        let mut neighbours = self.neighbours(now);
        self.meet(registry);
        // Both in the order of their ids, so each look-up is a step.
        let mut dockets = self.sessions.values_mut();
        for live in registry.sessions() {
            let Some(docket) = dockets.find(|docket| docket.session.id == live.session.id) else { break };
            docket.look((before, now), objectives, live, &mut changes);
            neighbours.judged += u32::from(docket.verdict != Verdict::Unknown);
            let bad = docket.verdict == Verdict::Bad;
            neighbours.bad += u32::from(bad);
            neighbours.hampered += u32::from(bad && docket.hampered == Some(true));
            neighbours.clean += u32::from(bad && docket.hampered == Some(false));
            neighbours.troubled += u32::from(docket.is_troubled(now, live));
            if !changes.is_empty() || docket.retells(now) {
                changed.push((live, std::mem::take(&mut changes)));
            }
        }
        for (live, changes) in changed {
            if let Some(docket) = self.sessions.get_mut(&live.session.id) {
                for change in changes {
                    notices.push(docket.tell(now, change, &neighbours, (objectives, live)));
                }
                docket.retell(now, &neighbours, (objectives, live), &mut notices);
            }
        }
        notices
    }

    /// A docket for each class that has none.
    fn meet(&mut self, registry: &Registry) {
        let mut known = self.sessions.keys();
        // After the first that is missing all are taken for new; those that are not stay as they are.
        let new: Vec<_> = registry.sessions().filter(|live| !known.any(|id| *id == live.session.id)).collect();
        for live in new {
            self.sessions.entry(live.session.id.clone()).or_insert_with(|| Box::new(ClassAlerts::new(&live.session)));
        }
    }

    /// Goes on with the alerts that fired on `session` when the daemon went down.
    pub(crate) fn resume(&mut self, session: &Arc<Session>, incidents: &[Incident]) {
        if incidents.is_empty() {
            return;
        }
        let docket = self.sessions.entry(session.id.clone()).or_insert_with(|| Box::new(ClassAlerts::new(session)));
        for incident in incidents {
            let standing = || AlertState::resumed(incident);
            docket.conditions.at(incident.alert, standing);
        }
    }

    /// Resolves what still fires for sessions that closed, with the evidence that it fired on: there is no newer one.
    pub fn close(&mut self, closed: &[Closed]) -> Vec<Notice> {
        let mut notices = Vec::new();
        for closed in closed {
            let Some(docket) = self.sessions.remove(&closed.session.id) else {
                continue;
            };
            for (alert, standing) in docket.conditions {
                if let Some(change) = ended(&standing.condition) {
                    let subject = Subject::Session(Arc::clone(&closed.session));
                    let told = standing.told.map(|told| (told.cause, told.why));
                    notices.push(because(notice(alert, subject, closed.at, change), told.unwrap_or_default()));
                } else if let Some(forecast) = standing.forecast {
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

    /// How many more viewers the node can carry by what one costs now; `None` while load or audience are not known or
    /// too small.
    #[must_use]
    pub fn capacity(&self, objectives: &Objectives) -> Option<Capacity> {
        self.forecast.capacity(objectives.load_ratio)
    }

    /// What stands beside the classes: the load of the last seconds and a degraded path.
    fn neighbours(&self, now: Timestamp) -> NodeSignals {
        let load = self.load.filter(|(.., at)| now.since(*at) <= LOAD_HELD).map(|(what, ratio, _)| (what, ratio));
        // An alert says more than a silence.
        let told =
            |firing: bool| self.paths.iter().filter(move |(_, path)| path.condition.firing().is_some() == firing);
        let path = told(true).chain(told(false)).find_map(|(peer, path)| path.against(peer, now));
        NodeSignals { load, path, ..NodeSignals::default() }
    }

    fn look_around(&mut self, now: Timestamp, objectives: &Objectives, around: &Environment, out: &mut Vec<Notice>) {
        let parts = around.node.parts();
        let loads = LOADS.iter().zip(parts).filter_map(|(name, ratio)| Some((*name, ratio?)));
        let fullest = loads.max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((name, ratio)) = fullest
            && self.load.is_none_or(|(_, known, at)| ratio >= known || now.since(at) > LOAD_HELD)
        {
            self.load = Some((name, ratio, now));
        }
        self.look_at_sources(now, around, out);
        self.look_at_paths(now, objectives, around, out);
        let finding = fullest.map_or(Finding::Unknown, |(_, ratio)| {
            against(evidence(ratio, objectives.load_ratio, "ratio", (1.0, "node")), now)
        });
        if let Some(change) = self.node.step(now, Rule::SUSTAINED, finding) {
            if change.0 == NoticeState::Firing {
                self.forecast.overtaken();
            }
            let why = fullest.map(|(name, ratio)| format!("{name} {:.0} % in use", ratio * 100.0));
            let left = self.capacity(objectives);
            let left = left.map(|left| format!("{:.0} viewers, room for {:.0} more", left.viewers, left.left));
            let found = (Cause::Node, why.into_iter().chain(left).collect());
            out.push(because(notice(Alert::LiveNodeOverloaded, Subject::Node, now, change), found));
        }
    }

    fn look_at_sources(&mut self, now: Timestamp, around: &Environment, out: &mut Vec<Notice>) {
        let left_out = |source: &SourceName| !around.sources.iter().any(|(known, _)| known == source);
        for (source, condition) in self.sources.extract_if(.., |source, _| left_out(source)) {
            if let Some(change) = ended(&condition) {
                out.push(notice(Alert::LiveSourceDown, Subject::Source(source), now, change));
            }
        }
        let silent = around.sources.iter().filter(|(_, silent)| silent.is_some()).count();
        for (source, silent_since) in &around.sources {
            let seconds = silent_since.map_or(0.0, |since| now.since(since).as_secs_f64());
            let evidence = evidence(seconds, 0.0, "seconds", (seconds, "seconds"));
            let finding = silent_since.map_or(Finding::Good(evidence), |since| Finding::Bad(evidence, since));
            let condition = self.sources.entry(source.clone()).or_default();
            if let Some(change) = condition.step(now, Rule::AT_ONCE, finding) {
                let loaded = self.load.is_some_and(|(_, ratio, _)| ratio >= cause::LOADED);
                let words =
                    format!("{silent} of {} sources are silent; what they watch is unknown", around.sources.len());
                let found = (if loaded { Cause::Node } else { Cause::Unknown }, [words].into());
                out.push(because(notice(Alert::LiveSourceDown, Subject::Source(source.clone()), now, change), found));
            }
        }
    }

    fn look_at_paths(&mut self, now: Timestamp, objectives: &Objectives, around: &Environment, out: &mut Vec<Notice>) {
        let left_out = |peer: &Arc<str>| !around.paths.iter().any(|word| word.peer == *peer);
        for (peer, path) in self.paths.extract_if(.., |peer, _| left_out(peer)) {
            if let Some(change) = ended(&path.condition) {
                out.push(notice(Alert::LivePathDegraded, Subject::Peer(peer), now, change));
            }
        }
        for word in &around.paths {
            let path = self.paths.entry(Arc::clone(&word.peer)).or_insert_with(PathRules::new);
            let finding = path.look(now, word, objectives.loss_ratio);
            if let Some(change) = path.condition.step(now, PATH_HELD, finding) {
                let subject = Subject::Peer(Arc::clone(&word.peer));
                let found = (Cause::EdgePath, Arc::from(Vec::new()));
                out.push(because(notice(Alert::LivePathDegraded, subject, now, change), found));
            }
        }
    }

    fn look_ahead(
        &mut self,
        now: Timestamp,
        objectives: &Objectives,
        registry: &Registry,
        around: &Environment,
    ) -> Option<Notice> {
        let heard = |leg: &crate::session::LiveLeg| u64::from(leg.heard_viewers(now));
        let viewers = registry.sessions().map(|live| {
            let counted: u64 = live.viewers(now).values().map(|count| u64::from(*count)).sum();
            counted.max(live.legs().map(|(_, leg)| heard(leg)).sum())
        });
        let viewers = viewers.reduce(u64::saturating_add).map(|viewers| viewers as f64);
        let notice = self.forecast.look(now, &around.node, viewers, objectives);
        notice.filter(|_| self.node.firing().is_none())
    }
}

/// A path is degraded when most of three seconds say so; its round trip is smoothed already.
const PATH_HELD: Rule = Rule { bad: 8, of: 12, clear_after: Duration::from_secs(10) };
/// The fullest load speaks for so long: a class suffers a moment after it.
const LOAD_HELD: Duration = Duration::from_secs(8);
