//! Labelled faults, each drawn from a seed: what they do to publishers, node, paths, networks and players, as they
//! would in practice.

use liveqos_core::model::{Cause, Protocol};

use super::dice::Dice;
use super::world::{Class, World};

/// A fault and what was drawn for it.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    kind: &'static str,
    /// The classes it is in.
    classes: Vec<usize>,
    severity: f64,
}

pub(crate) const KINDS: [(Cause, &str); 12] = [
    (Cause::Publisher, "uplink"),
    (Cause::Publisher, "encoder slow"),
    (Cause::Publisher, "encoder fat"),
    (Cause::Publisher, "gone"),
    (Cause::Node, "processor"),
    (Cause::Node, "network card"),
    (Cause::EdgePath, "relay, probed"),
    (Cause::EdgePath, "relay, not probed"),
    (Cause::EdgePath, "uplink of the node"),
    (Cause::ViewersAccess, "networks"),
    (Cause::ViewersAccess, "networks, no groups"),
    (Cause::Player, "release"),
];

/// A node of one to twelve classes; a single one only where one class is enough to name the fault.
pub(crate) fn node(kind: &str, seed: u64) -> (World, Dice) {
    let mut dice = Dice::new(seed);
    let least = if kind.contains("not probed") || kind.contains("node") || kind.contains("no groups") { 3 } else { 1 };
    let count = least + dice.pick(12 - least);
    let classes = (0..count).map(|number| {
        let viewers = [12, 20, 40, 80, 150, 300][dice.pick(6)];
        let protocol = [Protocol::Webrtc, Protocol::HttpFlv, Protocol::Hls][dice.pick(3)];
        let mut class = Class::new(number, viewers, protocol, &mut dice);
        class.reports_groups = !kind.contains("no groups");
        class
    });
    let mut world = World::new(classes.collect(), seed);
    world.path = (kind == "relay, probed" || kind == "processor").then_some((0.0005, 20.0));
    (world, dice)
}

impl Fault {
    pub(crate) fn draw((cause, kind): (Cause, &'static str), world: &World, dice: &mut Dice) -> Self {
        let all: Vec<usize> = (0..world.classes.len()).collect();
        let some = |dice: &mut Dice, share: f64| -> Vec<usize> {
            all.iter().copied().filter(|_| dice.roll() < share).collect()
        };
        let one = vec![dice.pick(all.len())];
        let classes = match cause {
            Cause::Publisher => one,
            Cause::Node | Cause::EdgePath => {
                let most = some(dice, 0.85);
                if most.len() * 2 > all.len() { most } else { all }
            }
            // A network with viewers of one class, or one with viewers of all classes.
            _ if dice.roll() < 0.5 => one,
            _ => all,
        };
        Self { kind, classes, severity: 0.03 + 0.15 * dice.roll() * dice.roll() }
    }

    /// The fault begins.
    pub(crate) fn begin(&self, world: &mut World, dice: &mut Dice) {
        match self.kind {
            "processor" => world.load[0] = 0.9 + 0.1 * dice.roll(),
            "network card" => world.load[2] = 0.92 + 0.08 * dice.roll(),
            "relay, probed" => world.path = Some((0.02 + 0.06 * dice.roll(), 20.0 + 100.0 * dice.roll())),
            _ => {}
        }
        let bad: Vec<u64> = (0..=dice.pick(2)).map(|_| 1_000 + dice.pick(3) as u64).collect();
        let weak: Vec<u64> = (1_000..1_020).filter(|_| dice.roll() < 0.4).collect();
        for index in &self.classes {
            let class = &mut world.classes[*index];
            self.send(class, dice);
            for cell in &mut class.cells {
                let (stutter, loss, late) = match self.kind {
                    "uplink" | "encoder slow" | "relay, probed" | "relay, not probed" => (self.severity, 0.0, 0.0),
                    "encoder fat" if weak.contains(&cell.network) => (self.severity * 1.5, 0.01, 150.0),
                    "encoder fat" => (0.01, 0.0, 0.0),
                    "gone" => (0.8, 0.0, 0.0),
                    "processor" | "network card" => (self.severity, 0.01 + self.severity * 0.2, 300.0),
                    "uplink of the node" => (self.severity, 0.01 + self.severity * 0.3, 200.0),
                    "release" if cell.player == "app 5.2" => (self.severity * 2.0, 0.0, 0.0),
                    kind if kind.starts_with("networks") && bad.contains(&cell.network) => {
                        (0.1 + self.severity * 2.0, 0.03 + self.severity * 0.3, 400.0)
                    }
                    _ => (0.0, 0.0, 0.0),
                };
                (cell.stutter, cell.loss, cell.late) = (stutter, loss, late);
            }
        }
    }

    /// What becomes of the publisher, as the node sees it.
    fn send(&self, class: &mut Class, dice: &mut Dice) {
        match self.kind {
            "uplink" | "relay, probed" | "relay, not probed" => {
                class.bits *= 0.3 + 0.3 * dice.roll();
                class.frames *= 0.5 + 0.3 * dice.roll();
                class.uneven = 0.5;
            }
            "encoder slow" => {
                class.bits *= 0.5;
                class.frames = 6.0 + 7.0 * dice.roll();
                class.uneven = 0.3;
            }
            "encoder fat" => class.bits *= 1.9 + dice.roll(),
            "gone" => class.publishing = false,
            _ => {}
        }
    }
}
