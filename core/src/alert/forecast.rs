//! What will break, and how many more viewers the node can carry. Decides by the trends of load and viewers; gives no
//! warning without a steady trend, and no capacity where no load is known.

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

/// How many more viewers the node can carry, and which resource limits that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Viewers now.
    pub viewers: f64,
    /// Further viewers that fit.
    pub additional_viewers: f64,
    /// The limiting resource: `processor` or `network`.
    pub limiting_resource: &'static str,
}

/// The names of the resources, in the order of [`NodeLoad::parts`].
pub(crate) const LOADS: [&str; 3] = ["processor", "memory", "network"];

impl NodeForecast {
    /// Takes in load and viewers of one step and judges their trends. What is over its limit already is not forecast.
    pub(crate) fn evaluate(
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
                keep_likelier(
                    &mut soonest,
                    forecast,
                    index,
                    format!("{} {level:.0} % in use and rising", LOADS[index]),
                );
            }
        }
        let capacity = self.capacity(limit);
        if let Some(capacity) = capacity
            && let Some(forecast) =
                self.viewers.reaches(capacity.viewers + capacity.additional_viewers, HORIZON_SECONDS)
            && let Some(index) = LOADS.iter().position(|name| *name == capacity.limiting_resource)
        {
            keep_likelier(&mut soonest, forecast, index, format!("{:.0} viewers and rising", capacity.viewers));
        }
        self.notice(now, limit, soonest, capacity)
    }

    /// The load is over its limit: the alert itself replaces the warning.
    pub(crate) fn cancel(&mut self) {
        self.warning = Hysteresis::default();
    }

    /// The capacity left, by the average cost per viewer. The node's own use counts as cost, so it is rather too low
    /// than too high.
    pub(crate) fn capacity(&self, limit: f64) -> Option<Capacity> {
        let viewers = self.viewers.newest().filter(|viewers| *viewers >= LEAST_VIEWERS)?;
        let each = self.loads.iter().zip(LOADS).filter_map(|(trend, limiting_resource)| {
            // Memory does not grow in proportion to the audience: most of it is the system's own.
            let load = trend.newest().filter(|load| *load > 0.0 && limiting_resource != "memory")?;
            Some(Capacity {
                viewers,
                additional_viewers: ((limit - load) / load * viewers).max(0.0),
                limiting_resource,
            })
        });
        each.min_by(|a, b| a.additional_viewers.total_cmp(&b.additional_viewers))
    }

    fn notice(
        &mut self,
        now: Timestamp,
        limit: f64,
        soonest: Option<(Forecast, usize, String)>,
        capacity: Option<Capacity>,
    ) -> Option<Notice> {
        let load = |index: usize| self.loads[index].newest().unwrap_or_default();
        let judged = |value: f64| evidence(value, limit, "ratio", (1.0, "node"));
        let mut why = Vec::new();
        let finding = if let Some((forecast, index, text)) = &soonest {
            self.last = Some(*forecast);
            why.push(text.clone());
            why.extend(capacity.map(|capacity| format!("room for {:.0} more viewers", capacity.additional_viewers)));
            let sure = forecast.confidence >= SURE;
            if sure { Finding::Bad(judged(load(*index)), now) } else { Finding::Between }
        } else {
            Finding::Good(judged((0..LOADS.len()).map(load).fold(0.0, f64::max)))
        };
        let (state, started_at, evidence) = self.warning.step(now, STEADY, finding)?;
        let forecast = if state == NoticeState::Firing { soonest.map(|soonest| soonest.0) } else { self.last };
        let (alert, cause, why) = (Alert::LiveNodeOverloaded, Cause::Node, why.into());
        let subject = Subject::Node;
        Some(Notice { alert, subject, state, started_at, at: now, evidence, cause, why, forecast, renotified: false })
    }
}

fn keep_likelier(soonest: &mut Option<(Forecast, usize, String)>, forecast: Forecast, index: usize, text: String) {
    if soonest.as_ref().is_none_or(|(known, ..)| known.confidence < forecast.confidence) {
        *soonest = Some((forecast, index, text));
    }
}

/// Horizon of a warning, in seconds.
const HORIZON_SECONDS: f64 = 600.0;
/// With fewer viewers the cost per viewer is not known.
const LEAST_VIEWERS: f64 = 20.0;
/// Three of four steps; clear after half a minute without.
const STEADY: Rule = Rule { bad: 3, of: 4, clear_after: std::time::Duration::from_secs(30) };
