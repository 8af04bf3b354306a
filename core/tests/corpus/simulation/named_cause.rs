//! The named causes of labelled faults: a confusion matrix.

use std::collections::BTreeMap;

use liveqos_core::model::{Alert, Cause, NoticeState};

use super::faults::{Fault, KINDS, node};
use super::world::World;

/// The cause named for one fault: the last one of most of its incidents, or `None` without an alert.
fn named(kind: (Cause, &'static str), seed: u64) -> Option<Cause> {
    named_with(kind, seed, &mut |_, _| {})
}

/// [`named`] on a node on which something else happens too: `also` is called each second since the fault began.
pub(crate) fn named_with(
    kind: (Cause, &'static str),
    seed: u64,
    also: &mut dyn FnMut(u64, &mut World),
) -> Option<Cause> {
    let (mut world, mut dice) = node(kind.1, seed);
    world.run(70);
    world.notices.clear();
    let fault = Fault::draw(kind, &world, &mut dice);
    let onset = world.now();
    fault.begin(&mut world, &mut dice);
    for second in 0..50 {
        also(second, &mut world);
        world.run(1);
    }
    let mut incidents: BTreeMap<(Alert, String), Cause> = BTreeMap::new();
    for notice in &world.notices {
        let about_class = matches!(notice.subject, liveqos_core::model::Subject::Session(_));
        if about_class && notice.state == NoticeState::Firing && notice.forecast.is_none() && notice.at > onset {
            incidents.insert((notice.alert, notice.subject.key().to_owned()), notice.cause);
        }
    }
    let mut votes: Vec<(usize, Cause)> = Vec::new();
    for cause in incidents.into_values() {
        match votes.iter_mut().find(|(_, known)| *known == cause) {
            Some((count, _)) => *count += 1,
            None => votes.push((1, cause)),
        }
    }
    votes.into_iter().max_by_key(|(count, _)| *count).map(|(_, cause)| cause)
}

/// Prints the matrix; returns how many faults were named right, raised an alert, and were played.
pub(crate) fn matrix(seeds: std::ops::Range<u64>) -> (usize, usize, usize) {
    let causes = [Cause::Publisher, Cause::Node, Cause::EdgePath, Cause::ViewersAccess, Cause::Player, Cause::Unknown];
    let (mut right, mut alerted, mut played) = (0, 0, 0);
    println!("{:<38} {}  no alert", "", causes.map(|cause| format!("{:>14}", cause.as_str())).join(""));
    for kind in KINDS {
        let causes_named: Vec<Option<Cause>> = seeds.clone().map(|seed| named(kind, seed)).collect();
        let count = |cause: Cause| causes_named.iter().filter(|named| **named == Some(cause)).count();
        let silent = causes_named.iter().filter(|named| named.is_none()).count();
        let row = causes.map(|cause| format!("{:>14}", count(cause))).join("");
        println!("{:<38} {row}  {silent}", format!("{}: {}", kind.0.as_str(), kind.1));
        right += count(kind.0);
        alerted += causes_named.len() - silent;
        played += causes_named.len();
    }
    println!(
        "{right} of {alerted} faults with an alert named right ({:.1} %), {played} played",
        right as f64 / alerted as f64 * 100.0
    );
    (right, alerted, played)
}
