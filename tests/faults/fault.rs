//! What is done to a node's classes, and the cause that it makes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use liveqos::demo::{Impairment, Sending};
use liveqos_core::model::Cause;

use crate::node::{CLASSES, Node, VIEWERS};

/// A fault.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What it is in: the class and the cause; all classes where the class is `None`.
    hurts: &'static [(Option<usize>, Cause)],
    begin: fn(&Node),
}

impl Fault {
    /// The fault begins; the classes that it is in, with its cause.
    pub(crate) fn begin(&self, node: &Node) -> Vec<(usize, Cause)> {
        (self.begin)(node);
        let classes = |(class, cause): &(Option<usize>, Cause)| {
            let of = class.map_or(0..CLASSES, |class| class..class + 1);
            of.map(|class| (class, *cause)).collect::<Vec<_>>()
        };
        self.hurts.iter().flat_map(classes).collect()
    }
}

const LOSSY: fn(f64) -> Impairment = |loss_ratio| Impairment { loss_ratio, ..Impairment::default() };
const NARROW: fn(u64) -> Impairment =
    |rate| Impairment { rate_bits_per_second: Some(rate), queue_bytes: 24_000, ..Impairment::default() };
/// The share of one viewer.
const ONE: f64 = 1.0 / VIEWERS as f64;

pub(crate) const FAULTS: [Fault; 10] = [
    Fault {
        name: "uplink hangs",
        hurts: &[(Some(0), Cause::Publisher)],
        begin: |node| node.class(0).send(Sending::Bursts(20)),
    },
    Fault {
        name: "encoder slow",
        hurts: &[(Some(1), Cause::Publisher)],
        begin: |node| node.class(1).send(Sending::OneOf(4)),
    },
    Fault {
        name: "every link loses",
        hurts: &[(None, Cause::EdgePath)],
        begin: |node| node.each(|class| class.impair(1.0, LOSSY(0.06))),
    },
    Fault {
        name: "every link is narrow",
        hurts: &[(None, Cause::EdgePath)],
        begin: |node| node.each(|class| class.impair(1.0, NARROW(200_000))),
    },
    Fault {
        name: "one link loses",
        hurts: &[(Some(2), Cause::ViewersAccess)],
        begin: |node| node.class(2).impair(ONE, LOSSY(0.2)),
    },
    Fault {
        name: "one link is narrow",
        hurts: &[(Some(0), Cause::ViewersAccess)],
        begin: |node| node.class(0).impair(ONE, NARROW(150_000)),
    },
    Fault {
        name: "the links of one class lose",
        hurts: &[(Some(1), Cause::ViewersAccess)],
        begin: |node| node.class(1).impair(1.0, LOSSY(0.08)),
    },
    Fault {
        name: "one player is slow",
        hurts: &[(Some(2), Cause::Player)],
        begin: |node| node.class(2).slow_player(0, Some(Duration::from_millis(1_200))),
    },
    Fault {
        name: "two at once, uplink and link",
        hurts: &[(Some(0), Cause::Publisher), (Some(1), Cause::ViewersAccess)],
        begin: |node| {
            node.class(0).send(Sending::Bursts(25));
            node.class(1).impair(ONE, LOSSY(0.25));
        },
    },
    Fault { name: "processor", hurts: &[(None, Cause::Node)], begin: busy },
];

/// Threads that take all of the processor from the node.
fn busy(node: &Node) {
    node.busy.store(true, Ordering::Relaxed);
    for _ in 0..BUSY_THREADS {
        let busy = Arc::clone(&node.busy);
        std::thread::spawn(move || {
            while busy.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
    }
}

const BUSY_THREADS: usize = 40;
