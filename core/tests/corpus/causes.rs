//! Whether the cause is named right: a confusion matrix over labelled faults.
//! `cargo test -p liveqos-core --release --test corpus -- --nocapture causes` prints it; `--ignored` plays more.

use std::collections::BTreeMap;

use liveqos_core::model::{Alert, Cause, NoticeState};

use crate::faults::{Fault, KINDS, node};
use crate::world::World;

/// What was said of one fault: the last cause told of most of its incidents, or `None` when nothing was told.
fn said(kind: (Cause, &'static str), seed: u64) -> Option<Cause> {
    said_of(kind, seed, &mut |_, _| {})
}

/// The same of a node to which something else happens too: `also` is asked each second since the fault's begin.
pub(crate) fn said_of(kind: (Cause, &'static str), seed: u64, also: &mut dyn FnMut(u64, &mut World)) -> Option<Cause> {
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

/// Faults named right, told, and played.
fn matrix(seeds: std::ops::Range<u64>) -> (usize, usize, usize) {
    let causes = [Cause::Publisher, Cause::Node, Cause::EdgePath, Cause::ViewersAccess, Cause::Player, Cause::Unknown];
    let (mut right, mut told, mut played) = (0, 0, 0);
    println!("{:<38} {}  untold", "", causes.map(|cause| format!("{:>14}", cause.as_str())).join(""));
    for kind in KINDS {
        let answers: Vec<Option<Cause>> = seeds.clone().map(|seed| said(kind, seed)).collect();
        let count = |cause: Cause| answers.iter().filter(|answer| **answer == Some(cause)).count();
        let untold = answers.iter().filter(|answer| answer.is_none()).count();
        let row = causes.map(|cause| format!("{:>14}", count(cause))).join("");
        println!("{:<38} {row}  {untold}", format!("{}: {}", kind.0.as_str(), kind.1));
        right += count(kind.0);
        told += answers.len() - untold;
        played += answers.len();
    }
    println!(
        "{right} of {told} told faults named right ({:.1} %), {played} played",
        right as f64 / told as f64 * 100.0
    );
    (right, told, played)
}

#[test]
fn causes_are_named_right() {
    let (right, told, played) = matrix(1..3);
    assert!(right * 10 >= told * 8, "{right} of {told}");
    assert!(told * 10 >= played * 9, "{told} of {played} faults were told at all");
}

#[test]
#[ignore = "the table of docs/alerts.md, a minute or more: cargo test -p liveqos-core --release --test corpus -- --ignored --nocapture causes"]
fn causes_of_many_faults() {
    let (right, told, _) = matrix(100..160);
    assert!(right * 100 >= told * 80, "{right} of {told}");
}
