//! Where a fault lies. Decides by who shares it: one class or all of the node, one leg or all, few networks or all;
//! together with load, paths and publishers. Without a sign for one cause the answer is `unknown`; it never guesses.

use std::time::Duration;

use super::concentration::Concentration;
use crate::model::{Alert, Cause};

/// What is known about the node and its classes at one evaluation.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeSignals {
    /// Classes with enough evidence to be judged, and those of them that are impaired now.
    pub(crate) judged: u32,
    pub(crate) bad: u32,
    /// Of the impaired ones: those with loss or latency over the limit, and those known to have neither.
    pub(crate) network_impaired: u32,
    pub(crate) network_clean: u32,
    /// Classes with an impaired publisher.
    pub(crate) publisher_impaired: u32,
    /// The most used of processor, memory and network in the last seconds, with its share in use.
    pub(crate) load: Option<(&'static str, f64)>,
    /// A degraded path to another node, as text.
    pub(crate) path: Option<String>,
}

/// What is known about the class itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassSignals {
    /// How long the fault has lasted.
    pub(crate) duration: Duration,
    /// Whether this class counts among the impaired ones of [`NodeSignals`].
    pub(crate) counted_bad: bool,
    /// Whether loss or latency is over the limit; `None` where that is not known.
    pub(crate) network_impaired: Option<bool>,
    /// What is wrong with the publisher, or that nothing is, as text.
    pub(crate) publisher_fault: Option<String>,
    pub(crate) publisher_healthy: Option<String>,
    /// Stalled share of the watching in the last seconds, of the worst leg.
    pub(crate) stalled: f64,
    /// Loss towards viewers, and its limit.
    pub(crate) loss: Option<(f64, f64)>,
    /// Delivery latency (p95) and its limit in seconds, viewers over the limit, viewers.
    pub(crate) latency: Option<(f64, f64, u64, u64)>,
    /// Bytes queued in the node's kernel.
    pub(crate) backlog: Option<u64>,
    /// Legs that are impaired, and legs that are not.
    pub(crate) legs: (Vec<&'static str>, Vec<&'static str>),
    /// Few networks or regions, or few players, that hold the stalls.
    pub(crate) place: Option<Concentration>,
    pub(crate) player: Option<Concentration>,
}

/// The cause of a fault of a class, and the evidence for it.
pub(crate) fn of(alert: Alert, node: &NodeSignals, class: &ClassSignals) -> (Cause, Vec<String>) {
    let diagnosis = Diagnosis::of(node, class);
    let (cause, reason) = match alert {
        Alert::LiveStreamDown => diagnosis.down(),
        Alert::LiveFpsLow => diagnosis.slow(),
        _ => diagnosis.quality(alert),
    };
    let mut why: Vec<String> = reason.into_iter().collect();
    let context =
        [diagnosis.neighbours(), diagnosis.load(), diagnosis.publisher(), diagnosis.loss(), diagnosis.latency()];
    for line in context.into_iter().flatten() {
        if !why.contains(&line) {
            why.push(line);
        }
    }
    (cause, why)
}

struct Diagnosis<'a> {
    node: &'a NodeSignals,
    class: &'a ClassSignals,
    others: u32,
    /// Other classes that are impaired in any way, and those impaired in the same way.
    others_impaired_any: u32,
    others_impaired: u32,
}

type Found = (Cause, Option<String>);

impl<'a> Diagnosis<'a> {
    fn of(node: &'a NodeSignals, class: &'a ClassSignals) -> Self {
        let others = node.judged.saturating_sub(1);
        let without_this_class = |bad: u32| bad.saturating_sub(u32::from(class.counted_bad)).min(others);
        let others_impaired_any = without_this_class(node.bad);
        // A class that is impaired in another way does not share this fault, unless all others are impaired.
        let differently = match class.network_impaired {
            Some(true) => node.network_clean,
            Some(false) => node.network_impaired,
            None => 0,
        };
        let alike = without_this_class(node.bad.saturating_sub(differently));
        Self {
            node,
            class,
            others,
            others_impaired_any,
            others_impaired: if others_impaired_any == others { others } else { alike },
        }
    }

    /// Whether at least half of the other classes are impaired in the same way.
    fn is_shared(&self) -> bool {
        self.others_impaired > 0 && self.others_impaired * 2 >= self.others
    }

    /// Whether the other classes show that the node and its network are healthy.
    fn others_are_well(&self) -> bool {
        self.others > 0 && self.others_impaired * 4 <= self.others
    }

    fn is_loaded(&self) -> bool {
        self.node.load.is_some_and(|(_, ratio)| ratio >= LOADED)
    }

    /// Whether at least half of the other classes have an impaired publisher too.
    fn publishers_share(&self) -> bool {
        let publisher_impaired =
            self.node.publisher_impaired.saturating_sub(u32::from(self.class.publisher_fault.is_some()));
        self.class.publisher_fault.is_some() && publisher_impaired > 0 && publisher_impaired * 2 >= self.others
    }

    /// Whether some viewers are late while most are not.
    fn few_late(&self) -> bool {
        self.class.latency.is_some_and(|(_, _, late, of)| late > 1 && late * 5 < of * 2)
    }

    /// Whether the network towards viewers is healthy, where anything is known of it.
    fn is_clean(&self) -> Option<bool> {
        let loss = self.class.loss.map(|(ratio, limit)| ratio < limit / 2.0);
        let late = self.class.latency.map(|(.., late, of)| late * 50 <= of);
        match (loss, late) {
            (None, None) => None,
            (loss, late) => Some(loss.unwrap_or(true) && late.unwrap_or(true)),
        }
    }

    fn loses(&self) -> Option<bool> {
        self.class.loss.map(|(ratio, limit)| ratio > limit)
    }

    fn is_late(&self) -> Option<bool> {
        self.class.latency.map(|(seconds, limit, ..)| seconds > limit)
    }

    fn down(&self) -> Found {
        match &self.node.path {
            _ if self.is_loaded() && self.is_shared() => (Cause::Node, self.load()),
            Some(path) if self.is_shared() => (Cause::EdgePath, Some(path.clone())),
            _ if self.is_shared() && self.others_impaired >= 2 => {
                (Cause::EdgePath, Some("the publishers of several classes went at once".to_owned()))
            }
            _ => (Cause::Publisher, Some("the media server says that nobody publishes".to_owned())),
        }
    }

    fn slow(&self) -> Found {
        if self.is_loaded() && self.node.publisher_impaired * 2 > self.node.judged.max(1) && self.others > 0 {
            return (Cause::Node, self.load());
        }
        (Cause::Publisher, self.class.publisher_fault.clone())
    }

    fn quality(&self, alert: Alert) -> Found {
        if self.is_loaded() && self.others_impaired_any * 2 >= self.others {
            return (Cause::Node, self.load());
        }
        let publisher_impaired = self.class.publisher_fault.is_some();
        if let Some(place) = self.class.place.as_ref().filter(|_| !publisher_impaired || self.loses() == Some(true)) {
            return (Cause::ViewersAccess, Some(concentrated(place)));
        }
        if let Some(player) = &self.class.player {
            return (Cause::Player, Some(concentrated(player)));
        }
        if self.is_shared() || self.publishers_share() || (self.others == 0 && self.node.path.is_some()) {
            return self.shared();
        }
        if publisher_impaired {
            return (Cause::Publisher, self.class.publisher_fault.clone());
        }
        if self.class.duration < MIN_DURATION {
            return (Cause::Unknown, None);
        }
        self.alone(alert)
    }

    /// Many classes are impaired and the node is not full.
    fn shared(&self) -> Found {
        if let Some(path) = &self.node.path {
            return (Cause::EdgePath, Some(path.clone()));
        }
        if self.publishers_share() {
            return (Cause::EdgePath, Some(format!("{} publishers falter at once", self.node.publisher_impaired)));
        }
        match (self.loses(), self.is_late()) {
            _ if self.few_late() => (Cause::ViewersAccess, self.latency()),
            (Some(true), _) => (Cause::EdgePath, self.loss()),
            (Some(false), Some(true)) => {
                let text = "queues grow on the node while its network loses nothing".to_owned();
                (Cause::Node, Some(text))
            }
            _ => (Cause::Unknown, None),
        }
    }

    /// Only this class is impaired, its publisher sends normally, and the fault has lasted a while.
    fn alone(&self, alert: Alert) -> Found {
        let (bad, well) = &self.class.legs;
        let network = self.loses() == Some(true) || self.is_late() == Some(true);
        if self.few_late() || (network && self.others_are_well()) {
            return (Cause::ViewersAccess, if self.loses() == Some(true) { self.loss() } else { self.latency() });
        }
        if alert != Alert::LiveStutterHigh || network || self.class.publisher_healthy.is_none() {
            return (Cause::Unknown, None);
        }
        if !bad.is_empty() && !well.is_empty() {
            let text = format!("{} suffers, {} is well", bad.join(", "), well.join(", "));
            return (Cause::Player, Some(text));
        }
        match self.is_clean() {
            // Players fail one by one, or one kind of them does. What stops for all at once never arrived.
            Some(true) if self.class.stalled >= MOST_STALLED => {
                let stalled = self.class.stalled * 100.0;
                let text = format!(
                    "{stalled:.0} % of all watching stands still though the network neither loses nor delays: it comes in broken"
                );
                (Cause::Publisher, Some(text))
            }
            Some(true) => (Cause::Player, Some("players stall though the network neither loses nor delays".to_owned())),
            _ => (Cause::Unknown, None),
        }
    }

    fn neighbours(&self) -> Option<String> {
        (self.others > 0)
            .then(|| format!("{} of {} other classes on this node suffer too", self.others_impaired, self.others))
    }

    fn load(&self) -> Option<String> {
        self.node.load.map(|(what, ratio)| format!("{what} {:.0} % in use", ratio * 100.0))
    }

    fn publisher(&self) -> Option<String> {
        self.class.publisher_fault.clone().or_else(|| self.class.publisher_healthy.clone())
    }

    fn loss(&self) -> Option<String> {
        self.class.loss.map(|(ratio, _)| format!("loss towards viewers {:.2} %", ratio * 100.0))
    }

    fn latency(&self) -> Option<String> {
        self.class.latency.map(|(seconds, _, late, of)| {
            let backlog = self.class.backlog.filter(|bytes| *bytes > 0);
            let waits = backlog.map_or_else(String::new, |bytes| format!(", {} kB wait", bytes / 1_000));
            format!("latency p95 {:.0} ms, {late} of {of} viewers over the limit{waits}", seconds * 1e3)
        })
    }
}

fn concentrated(found: &Concentration) -> String {
    let ((groups, of), stalled, watched) = (found.groups, found.stalled_share * 100.0, found.exposure_share * 100.0);
    let (worst, up_to) = (&found.worst, if found.at_most { "up to " } else { "" });
    format!(
        "{groups} of {up_to}{of} groups hold {stalled:.0} % of the stalls with {watched:.0} % of the watching, most of all {worst}"
    )
}

/// From this share in use a resource counts as a cause; its own alert needs more.
pub(crate) const LOADED: f64 = 0.88;
/// From this stalled share on most viewers are stalled.
const MOST_STALLED: f64 = 0.5;
/// A cause concluded from the absence of signs needs a fault of at least this length: a faulty publisher shows only
/// after two or three seconds.
const MIN_DURATION: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// Stutter of 15 %, latency over 500 ms, loss of 5 % and 92 % processor on all classes: the node is too small for
    /// its audience.
    #[test]
    fn an_overloaded_node_is_the_cause() {
        let node = NodeSignals { judged: 12, bad: 11, load: Some(("processor", 0.92)), ..NodeSignals::default() };
        let class = ClassSignals {
            counted_bad: true,
            loss: Some((0.05, 0.005)),
            latency: Some((0.52, 0.2, 90, 120)),
            publisher_healthy: Some("the publisher sends as usual".to_owned()),
            ..ClassSignals::default()
        };
        for alert in [Alert::LiveStutterHigh, Alert::LiveLatencyHigh, Alert::LivePacketLossHigh] {
            let (cause, why) = of(alert, &node, &class);
            assert_eq!(cause, Cause::Node);
            assert_eq!(why[0], "processor 92 % in use");
            assert!(why.contains(&"10 of 11 other classes on this node suffer too".to_owned()), "{why:?}");
            assert!(why.iter().any(|line| line.contains("5.00 %")) && why.iter().any(|line| line.contains("520 ms")));
        }
        let one = NodeSignals { bad: 1, ..node };
        let (cause, _) = of(Alert::LiveStutterHigh, &one, &ClassSignals { duration: Duration::from_secs(9), ..class });
        assert_eq!(cause, Cause::ViewersAccess, "a busy node on which the others are healthy is not the cause");
    }

    #[test]
    fn few_stalled_viewers_blame_the_player_and_all_of_them_the_publisher() {
        let node = NodeSignals { judged: 3, bad: 1, ..NodeSignals::default() };
        let class = |stalled| ClassSignals {
            counted_bad: true,
            duration: Duration::from_secs(9),
            stalled,
            loss: Some((0.0, 0.005)),
            latency: Some((0.03, 0.2, 0, 6)),
            publisher_healthy: Some("the publisher sends as usual".to_owned()),
            ..ClassSignals::default()
        };
        assert_eq!(of(Alert::LiveStutterHigh, &node, &class(0.16)).0, Cause::Player);
        let (cause, why) = of(Alert::LiveStutterHigh, &node, &class(0.9));
        assert_eq!(cause, Cause::Publisher);
        assert!(why[0].starts_with("90 % of all watching stands still"), "{why:?}");
    }

    #[test]
    fn classes_impaired_in_different_ways_share_no_cause() {
        let node = NodeSignals { judged: 3, bad: 2, network_impaired: 1, network_clean: 1, ..NodeSignals::default() };
        let publisher_healthy = Some("the publisher sends as usual".to_owned());
        let class = ClassSignals {
            counted_bad: true,
            duration: Duration::from_secs(9),
            publisher_healthy,
            ..ClassSignals::default()
        };
        let lossy = ClassSignals { network_impaired: Some(true), loss: Some((0.05, 0.005)), ..class.clone() };
        assert_eq!(of(Alert::LivePacketLossHigh, &node, &lossy).0, Cause::ViewersAccess);
        let clean =
            ClassSignals { network_impaired: Some(false), loss: Some((0.0, 0.005)), stalled: 0.1, ..class.clone() };
        assert_eq!(of(Alert::LiveStutterHigh, &node, &clean).0, Cause::Player);
        let alike = NodeSignals { network_impaired: 2, network_clean: 0, ..node };
        assert_eq!(of(Alert::LivePacketLossHigh, &alike, &lossy).0, Cause::EdgePath);
    }

    #[test]
    fn without_signs_the_cause_is_unknown() {
        let class = ClassSignals { duration: Duration::from_mins(1), ..ClassSignals::default() };
        assert_eq!(of(Alert::LiveStutterHigh, &NodeSignals::default(), &class).0, Cause::Unknown);
        let shared = NodeSignals { judged: 5, bad: 5, ..NodeSignals::default() };
        assert_eq!(of(Alert::LiveStutterHigh, &shared, &ClassSignals { counted_bad: true, ..class }).0, Cause::Unknown);
    }

    #[test]
    fn a_missing_publisher_is_the_cause_unless_all_are_missing() {
        let class = ClassSignals { counted_bad: true, ..ClassSignals::default() };
        let alone = NodeSignals { judged: 6, bad: 1, ..NodeSignals::default() };
        assert_eq!(of(Alert::LiveStreamDown, &alone, &class).0, Cause::Publisher);
        let all = NodeSignals { judged: 6, bad: 6, ..NodeSignals::default() };
        assert_eq!(of(Alert::LiveStreamDown, &all, &class).0, Cause::EdgePath);
    }
}
