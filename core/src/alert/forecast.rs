//! What will break, and how much the node can still carry. Decides from the trend of its load and its viewers; refuses
//! a warning without a steady course, and a capacity where no load is told.

use super::evidence::{SURE, evidence};
use super::hysteresis::{Finding, Hysteresis, Rule};
use super::trend::Trend;
use crate::model::{Alert, Cause, Forecast, NodeLoad, Notice, NoticeState, Objectives, Subject, Timestamp};

/// The trends of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeForecast {
    loads: [Trend; 3],
    viewers: Trend,
    warning: Hysteresis,
    last: Option<Forecast>,
}

/// How many more viewers the node can carry, and what ends first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Viewers now.
    pub viewers: f64,
    /// Viewers that may still come.
    pub left: f64,
    /// `processor`, `memory` or `network`.
    pub short: &'static str,
}

/// The names of the loads, in the order that they are kept in.
pub(crate) const LOADS: [&str; 3] = ["processor", "memory", "network"];

impl NodeForecast {
    /// Takes in the load and the viewers of one step, and judges where they go. What is over its limit already is not
    /// foretold.
    pub(crate) fn look(
        &mut self,
        now: Timestamp,
        node: &NodeLoad,
        viewers: Option<f64>,
        objectives: &Objectives,
    ) -> Option<Notice> {
        for (trend, load) in self.loads.iter_mut().zip(node.parts()) {
            trend.add(load);
        }
        self.viewers.add(viewers);
        let limit = objectives.load_ratio;
        let mut soonest: Option<(Forecast, usize, String)> = None;
        for (index, trend) in self.loads.iter().enumerate() {
            if let Some(forecast) = trend.reaches(limit, HORIZON_SECONDS) {
                let level = trend.newest().unwrap_or_default() * 100.0;
                consider(&mut soonest, forecast, index, format!("{} {level:.0} % in use and rising", LOADS[index]));
            }
        }
        let capacity = self.capacity(limit);
        if let Some(capacity) = capacity
            && let Some(forecast) = self.viewers.reaches(capacity.viewers + capacity.left, HORIZON_SECONDS)
            && let Some(index) = LOADS.iter().position(|name| *name == capacity.short)
        {
            consider(&mut soonest, forecast, index, format!("{:.0} viewers and rising", capacity.viewers));
        }
        self.tell(now, limit, soonest, capacity)
    }

    /// The load is over its limit: the alert itself speaks now, the warning is no more.
    pub(crate) fn overtaken(&mut self) {
        self.warning = Hysteresis::default();
    }

    /// The capacity left by what a viewer costs on average, the node's own use included: rather too little than too
    /// much.
    pub(crate) fn capacity(&self, limit: f64) -> Option<Capacity> {
        let viewers = self.viewers.newest().filter(|viewers| *viewers >= LEAST_VIEWERS)?;
        let each = self.loads.iter().zip(LOADS).filter_map(|(trend, short)| {
            // Memory does not grow with the audience in proportion: the system's own share is most of it.
            let load = trend.newest().filter(|load| *load > 0.0 && short != "memory")?;
            Some(Capacity { viewers, left: ((limit - load) / load * viewers).max(0.0), short })
        });
        each.min_by(|a, b| a.left.total_cmp(&b.left))
    }

    fn tell(
        &mut self,
        now: Timestamp,
        limit: f64,
        soonest: Option<(Forecast, usize, String)>,
        capacity: Option<Capacity>,
    ) -> Option<Notice> {
        let load = |index: usize| self.loads[index].newest().unwrap_or_default();
        let judged = |value: f64| evidence(value, limit, "ratio", (1.0, "node"));
        let mut why = Vec::new();
        let finding = if let Some((forecast, index, words)) = &soonest {
            self.last = Some(*forecast);
            why.push(words.clone());
            why.extend(capacity.map(|capacity| format!("room for {:.0} more viewers", capacity.left)));
            let sure = forecast.confidence >= SURE;
            if sure { Finding::Bad(judged(load(*index)), now) } else { Finding::Between }
        } else {
            Finding::Good(judged((0..LOADS.len()).map(load).fold(0.0, f64::max)))
        };
        let (state, started_at, evidence) = self.warning.step(now, STEADY, finding)?;
        let forecast = if state == NoticeState::Firing { soonest.map(|soonest| soonest.0) } else { self.last };
        let (alert, cause, why) = (Alert::LiveNodeOverloaded, Cause::Node, why.into());
        let subject = Subject::Node;
        Some(Notice { alert, subject, state, started_at, at: now, evidence, cause, why, forecast, retold: false })
    }
}

fn consider(soonest: &mut Option<(Forecast, usize, String)>, forecast: Forecast, index: usize, words: String) {
    if soonest.as_ref().is_none_or(|(known, ..)| known.confidence < forecast.confidence) {
        *soonest = Some((forecast, index, words));
    }
}

/// A warning is given so far ahead at most.
const HORIZON_SECONDS: f64 = 600.0;
/// With fewer viewers what one costs is not known.
const LEAST_VIEWERS: f64 = 20.0;
/// Three steps of four; over after half a minute without.
const STEADY: Rule = Rule { bad: 3, of: 4, clear_after: std::time::Duration::from_secs(30) };
