//! Where a fault lies. Decides it from who shares it: one class or all of the node, one leg or all, few networks or
//! all, with the load, the paths and the publisher beside it; refuses to guess: without a sign that speaks for one
//! cause it stays unknown.

use std::time::Duration;

use super::concentration::Concentration;
use crate::model::{Alert, Cause};

/// What is known around a class at one look.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeSignals {
    /// Classes with enough evidence to be judged, and those of them that suffer now.
    pub(crate) judged: u32,
    pub(crate) bad: u32,
    /// Of those that suffer: to whose viewers much is lost or late, and to whose it is known not to be.
    pub(crate) hampered: u32,
    pub(crate) clean: u32,
    /// Classes whose publisher is in trouble.
    pub(crate) troubled: u32,
    /// The fullest of processor, memory and network lately, where any is known.
    pub(crate) load: Option<(&'static str, f64)>,
    /// A degraded path to another node, in words.
    pub(crate) path: Option<String>,
}

/// What is known of the class itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassSignals {
    /// How long the fault lasts by now.
    pub(crate) lasts: Duration,
    /// Whether this class itself counts as bad among its neighbours.
    pub(crate) counted: bool,
    /// Whether much is lost or late towards its viewers, where that is known.
    pub(crate) hampered: Option<bool>,
    /// What is wrong with the publisher, and that nothing is, in words.
    pub(crate) trouble: Option<String>,
    pub(crate) health: Option<String>,
    /// The share of its watching that stood still lately, of the leg that suffers most.
    pub(crate) stalled: f64,
    /// Loss towards viewers and its limit.
    pub(crate) loss: Option<(f64, f64)>,
    /// Delivery latency (p95) and its limit in seconds, viewers over it, viewers.
    pub(crate) latency: Option<(f64, f64, u64, u64)>,
    /// Bytes waiting in the node's kernel.
    pub(crate) backlog: Option<u64>,
    /// Legs that suffer, and legs that are well.
    pub(crate) legs: (Vec<&'static str>, Vec<&'static str>),
    /// Few networks or regions, few players, that hold the stalls.
    pub(crate) place: Option<Concentration>,
    pub(crate) player: Option<Concentration>,
}

/// The cause of a fault of a class and what speaks for it.
pub(crate) fn of(alert: Alert, around: &NodeSignals, own: &ClassSignals) -> (Cause, Vec<String>) {
    let signs = Signs::of(around, own);
    let (cause, reason) = match alert {
        Alert::LiveStreamDown => signs.down(),
        Alert::LiveFpsLow => signs.slow(),
        _ => signs.quality(alert),
    };
    let mut why: Vec<String> = reason.into_iter().collect();
    let context = [signs.neighbours(), signs.load(), signs.publisher(), signs.loss(), signs.latency()];
    for line in context.into_iter().flatten() {
        if !why.contains(&line) {
            why.push(line);
        }
    }
    (cause, why)
}

struct Signs<'a> {
    around: &'a NodeSignals,
    own: &'a ClassSignals,
    others: u32,
    /// Others that suffer in any way, and those that suffer in the same way.
    others_hurt: u32,
    others_bad: u32,
}

type Found = (Cause, Option<String>);

impl<'a> Signs<'a> {
    fn of(around: &'a NodeSignals, own: &'a ClassSignals) -> Self {
        let others = around.judged.saturating_sub(1);
        let without_own = |bad: u32| bad.saturating_sub(u32::from(own.counted)).min(others);
        let others_hurt = without_own(around.bad);
        // Who suffers otherwise than this class does not share its fault, unless all others suffer.
        let otherwise = match own.hampered {
            Some(true) => around.clean,
            Some(false) => around.hampered,
            None => 0,
        };
        let alike = without_own(around.bad.saturating_sub(otherwise));
        Self { around, own, others, others_hurt, others_bad: if others_hurt == others { others } else { alike } }
    }

    /// Half of the other classes and more suffer too, in the same way.
    fn is_shared(&self) -> bool {
        self.others_bad > 0 && self.others_bad * 2 >= self.others
    }

    /// Whether the other classes show that the node and its network are well.
    fn others_are_well(&self) -> bool {
        self.others > 0 && self.others_bad * 4 <= self.others
    }

    fn is_loaded(&self) -> bool {
        self.around.load.is_some_and(|(_, ratio)| ratio >= LOADED)
    }

    /// Half of the other classes' publishers and more are in trouble too.
    fn publishers_share(&self) -> bool {
        let troubled = self.around.troubled.saturating_sub(u32::from(self.own.trouble.is_some()));
        self.own.trouble.is_some() && troubled > 0 && troubled * 2 >= self.others
    }

    /// Some viewers are late while most are not.
    fn few_are_late(&self) -> bool {
        self.own.latency.is_some_and(|(_, _, late, of)| late > 1 && late * 5 < of * 2)
    }

    /// Whether the network towards viewers shows nothing, where it is known at all.
    fn is_clean(&self) -> Option<bool> {
        let loss = self.own.loss.map(|(ratio, limit)| ratio < limit / 2.0);
        let late = self.own.latency.map(|(.., late, of)| late * 50 <= of);
        match (loss, late) {
            (None, None) => None,
            (loss, late) => Some(loss.unwrap_or(true) && late.unwrap_or(true)),
        }
    }

    fn loses(&self) -> Option<bool> {
        self.own.loss.map(|(ratio, limit)| ratio > limit)
    }

    fn is_late(&self) -> Option<bool> {
        self.own.latency.map(|(seconds, limit, ..)| seconds > limit)
    }

    fn down(&self) -> Found {
        match &self.around.path {
            _ if self.is_loaded() && self.is_shared() => (Cause::Node, self.load()),
            Some(path) if self.is_shared() => (Cause::EdgePath, Some(path.clone())),
            _ if self.is_shared() && self.others_bad >= 2 => {
                (Cause::EdgePath, Some("the publishers of several classes went at once".to_owned()))
            }
            _ => (Cause::Publisher, Some("the media server says that nobody publishes".to_owned())),
        }
    }

    fn slow(&self) -> Found {
        if self.is_loaded() && self.around.troubled * 2 > self.around.judged.max(1) && self.others > 0 {
            return (Cause::Node, self.load());
        }
        (Cause::Publisher, self.own.trouble.clone())
    }

    fn quality(&self, alert: Alert) -> Found {
        if self.is_loaded() && self.others_hurt * 2 >= self.others {
            return (Cause::Node, self.load());
        }
        let troubled = self.own.trouble.is_some();
        if let Some(place) = self.own.place.as_ref().filter(|_| !troubled || self.loses() == Some(true)) {
            return (Cause::ViewersAccess, Some(held(place)));
        }
        if let Some(player) = &self.own.player {
            return (Cause::Player, Some(held(player)));
        }
        if self.is_shared() || self.publishers_share() || (self.others == 0 && self.around.path.is_some()) {
            return self.shared();
        }
        if troubled {
            return (Cause::Publisher, self.own.trouble.clone());
        }
        if self.own.lasts < PATIENCE {
            return (Cause::Unknown, None);
        }
        self.alone(alert)
    }

    /// Many classes suffer and the node is not full.
    fn shared(&self) -> Found {
        if let Some(path) = &self.around.path {
            return (Cause::EdgePath, Some(path.clone()));
        }
        if self.publishers_share() {
            return (Cause::EdgePath, Some(format!("{} publishers falter at once", self.around.troubled)));
        }
        match (self.loses(), self.is_late()) {
            _ if self.few_are_late() => (Cause::ViewersAccess, self.latency()),
            (Some(true), _) => (Cause::EdgePath, self.loss()),
            (Some(false), Some(true)) => {
                let words = "queues grow on the node while its network loses nothing".to_owned();
                (Cause::Node, Some(words))
            }
            _ => (Cause::Unknown, None),
        }
    }

    /// This class alone suffers and its publisher sends as usual, for a while by now.
    fn alone(&self, alert: Alert) -> Found {
        let (bad, well) = &self.own.legs;
        let network = self.loses() == Some(true) || self.is_late() == Some(true);
        if self.few_are_late() || (network && self.others_are_well()) {
            return (Cause::ViewersAccess, if self.loses() == Some(true) { self.loss() } else { self.latency() });
        }
        if alert != Alert::LiveStutterHigh || network || self.own.health.is_none() {
            return (Cause::Unknown, None);
        }
        if !bad.is_empty() && !well.is_empty() {
            let words = format!("{} suffers, {} is well", bad.join(", "), well.join(", "));
            return (Cause::Player, Some(words));
        }
        match self.is_clean() {
            // Players fail one by one, or one kind of them does: what stops for all at once was not there to be shown.
            Some(true) if self.own.stalled >= MOST => {
                let stalled = self.own.stalled * 100.0;
                let words = format!(
                    "{stalled:.0} % of all watching stands still though the network neither loses nor delays: it comes in broken"
                );
                (Cause::Publisher, Some(words))
            }
            Some(true) => (Cause::Player, Some("players stall though the network neither loses nor delays".to_owned())),
            _ => (Cause::Unknown, None),
        }
    }

    fn neighbours(&self) -> Option<String> {
        (self.others > 0)
            .then(|| format!("{} of {} other classes on this node suffer too", self.others_bad, self.others))
    }

    fn load(&self) -> Option<String> {
        self.around.load.map(|(what, ratio)| format!("{what} {:.0} % in use", ratio * 100.0))
    }

    fn publisher(&self) -> Option<String> {
        self.own.trouble.clone().or_else(|| self.own.health.clone())
    }

    fn loss(&self) -> Option<String> {
        self.own.loss.map(|(ratio, _)| format!("loss towards viewers {:.2} %", ratio * 100.0))
    }

    fn latency(&self) -> Option<String> {
        self.own.latency.map(|(seconds, _, late, of)| {
            let backlog = self.own.backlog.filter(|bytes| *bytes > 0);
            let waits = backlog.map_or_else(String::new, |bytes| format!(", {} kB wait", bytes / 1_000));
            format!("latency p95 {:.0} ms, {late} of {of} viewers over the limit{waits}", seconds * 1e3)
        })
    }
}

fn held(found: &Concentration) -> String {
    let ((groups, of), stalled, watched) = (found.groups, found.stalled_share * 100.0, found.exposure_share * 100.0);
    let (worst, up_to) = (&found.worst, if found.at_most { "up to " } else { "" });
    format!(
        "{groups} of {up_to}{of} groups hold {stalled:.0} % of the stalls with {watched:.0} % of the watching, most of all {worst}"
    )
}

/// A resource this full makes the node a cause; its own alert waits for more.
pub(crate) const LOADED: f64 = 0.88;
/// So much of the watching stands still where most viewers do.
const MOST: f64 = 0.5;
/// What is concluded from the absence of signs waits for so long: a publisher's trouble shows in two or three seconds
/// only.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// Stutter of 15 %, latency over 500 ms, loss of 5 %, processor over 90 %, on all classes: too few nodes for the
    /// audience.
    #[test]
    fn the_node_that_carries_too_much_is_named() {
        let around = NodeSignals { judged: 12, bad: 11, load: Some(("processor", 0.92)), ..NodeSignals::default() };
        let own = ClassSignals {
            counted: true,
            loss: Some((0.05, 0.005)),
            latency: Some((0.52, 0.2, 90, 120)),
            health: Some("the publisher sends as usual".to_owned()),
            ..ClassSignals::default()
        };
        for alert in [Alert::LiveStutterHigh, Alert::LiveLatencyHigh, Alert::LivePacketLossHigh] {
            let (cause, why) = of(alert, &around, &own);
            assert_eq!(cause, Cause::Node);
            assert_eq!(why[0], "processor 92 % in use");
            assert!(why.contains(&"10 of 11 other classes on this node suffer too".to_owned()), "{why:?}");
            assert!(why.iter().any(|line| line.contains("5.00 %")) && why.iter().any(|line| line.contains("520 ms")));
        }
        let one = NodeSignals { bad: 1, ..around };
        let (cause, _) = of(Alert::LiveStutterHigh, &one, &ClassSignals { lasts: Duration::from_secs(9), ..own });
        assert_eq!(cause, Cause::ViewersAccess, "a busy node on which the others are well is not the cause");
    }

    #[test]
    fn who_stalls_alone_is_a_player_and_when_all_do_it_came_in_broken() {
        let around = NodeSignals { judged: 3, bad: 1, ..NodeSignals::default() };
        let own = |stalled| ClassSignals {
            counted: true,
            lasts: Duration::from_secs(9),
            stalled,
            loss: Some((0.0, 0.005)),
            latency: Some((0.03, 0.2, 0, 6)),
            health: Some("the publisher sends as usual".to_owned()),
            ..ClassSignals::default()
        };
        assert_eq!(of(Alert::LiveStutterHigh, &around, &own(0.16)).0, Cause::Player);
        let (cause, why) = of(Alert::LiveStutterHigh, &around, &own(0.9));
        assert_eq!(cause, Cause::Publisher);
        assert!(why[0].starts_with("90 % of all watching stands still"), "{why:?}");
    }

    #[test]
    fn of_two_that_suffer_otherwise_neither_shares_its_fault() {
        let around = NodeSignals { judged: 3, bad: 2, hampered: 1, clean: 1, ..NodeSignals::default() };
        let health = Some("the publisher sends as usual".to_owned());
        let own = ClassSignals { counted: true, lasts: Duration::from_secs(9), health, ..ClassSignals::default() };
        let lossy = ClassSignals { hampered: Some(true), loss: Some((0.05, 0.005)), ..own.clone() };
        assert_eq!(of(Alert::LivePacketLossHigh, &around, &lossy).0, Cause::ViewersAccess);
        let clean = ClassSignals { hampered: Some(false), loss: Some((0.0, 0.005)), stalled: 0.1, ..own.clone() };
        assert_eq!(of(Alert::LiveStutterHigh, &around, &clean).0, Cause::Player);
        let alike = NodeSignals { hampered: 2, clean: 0, ..around };
        assert_eq!(of(Alert::LivePacketLossHigh, &alike, &lossy).0, Cause::EdgePath);
    }

    #[test]
    fn nothing_known_is_unknown() {
        let own = ClassSignals { lasts: Duration::from_mins(1), ..ClassSignals::default() };
        assert_eq!(of(Alert::LiveStutterHigh, &NodeSignals::default(), &own).0, Cause::Unknown);
        let shared = NodeSignals { judged: 5, bad: 5, ..NodeSignals::default() };
        assert_eq!(of(Alert::LiveStutterHigh, &shared, &ClassSignals { counted: true, ..own }).0, Cause::Unknown);
    }

    #[test]
    fn who_is_missing_is_the_publisher_unless_all_are() {
        let own = ClassSignals { counted: true, ..ClassSignals::default() };
        let alone = NodeSignals { judged: 6, bad: 1, ..NodeSignals::default() };
        assert_eq!(of(Alert::LiveStreamDown, &alone, &own).0, Cause::Publisher);
        let all = NodeSignals { judged: 6, bad: 6, ..NodeSignals::default() };
        assert_eq!(of(Alert::LiveStreamDown, &all, &own).0, Cause::EdgePath);
    }
}
