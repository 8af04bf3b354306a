//! A folder that can only be read at the start, or not even that, and later can be used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::journal::{Changes, Lasting};
use super::tests::{ALL, CAPS, Disks, OURS, number_of, record, told};
use super::writer::{FolderRepair, *};
use crate::otlp::{ExportQueue as _, Limits, Signal};

/// Opens when it is told to.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn ground(&self, readable: bool) -> FolderAccess {
        FolderAccess { lock: None, opener: Some(Box::new(self.clone())), readable }
    }

    fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl FolderRepair for Gate {
    fn open(&self, _: &mut Option<std::fs::File>) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

#[test]
fn a_folder_that_is_read_only_at_the_start_is_gone_on_with_and_taken_up_later() {
    let disks = Disks::default();
    let (mut scribe, _) = disks.start_on(OURS, CAPS);
    (1..=3).for_each(|number| scribe.tell(number));
    // A record that nobody was told of, and must not be taken for another later.
    scribe.spool().append(record(Signal::Logs, 99, 5));
    let marks = scribe.spool().seal().0;
    let shelf = &mut scribe.shelves[0];
    shelf.keeper.write(&shelf.spool, &marks).expect("a good disk");
    drop(scribe);
    disks.trouble(Some(io::ErrorKind::ReadOnlyFilesystem));
    let gate = Gate::default();
    let (mut scribe, found) = disks.start_on(gate.ground(true), CAPS);
    assert_eq!(told(&found.checkpoint), [1, 2, 3], "what could be read is gone on with");
    scribe.tell(4);
    let health = scribe.desk.health().clone();
    assert!(!health.kept && health.why.is_some(), "{health:?}");
    let batch = scribe.spool().peek(Signal::Traces, Limits { items: 2, ..ALL });
    assert_eq!(number_of(&batch.messages[0]), 1, "what waited is sent meanwhile");
    scribe.spool().acknowledge(Signal::Traces, batch.until);
    gate.open();
    scribe.tell(5);
    assert!(!scribe.desk.health().kept, "the way is free, the disk is not");
    disks.trouble(None);
    scribe.tell(6);
    assert!(scribe.desk.health().kept);
    drop(scribe);
    disks.power_cut(|| 0);
    let (scribe, found) = disks.start_on(OURS, CAPS);
    assert_eq!(told(&found.checkpoint), [1, 2, 3, 4, 5, 6]);
    assert_eq!(scribe.numbers(Signal::Traces), [3, 4, 5, 6]);
    assert_eq!(scribe.numbers(Signal::Logs), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_is_found_late_is_handed_over_once() {
    let disks = Disks::default();
    let (mut scribe, _) = disks.start_on(OURS, CAPS);
    (1..=3).for_each(|number| scribe.tell(number));
    drop(scribe);
    let gate = Gate::default();
    let (mut scribe, found) = disks.start_on(gate.ground(false), CAPS);
    assert_eq!(found, Lasting::default());
    scribe.tell(4);
    assert!(scribe.desk.work().found.is_none());
    gate.open();
    scribe.tell(5);
    let found = scribe.desk.work().found.take().expect("what lived before");
    assert_eq!(told(&found.checkpoint), [1, 2, 3]);
    assert!(scribe.desk.health().kept);
    drop(scribe);
    disks.power_cut(|| 0);
    let (scribe, found) = disks.start_on(OURS, CAPS);
    assert_eq!(told(&found.checkpoint), [4, 5], "what lived before is told of again by whoever goes on with it");
    assert_eq!(scribe.numbers(Signal::Traces), [1, 2, 3, 4, 5], "what waited goes first");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Steps: 0 peek, 1 acknowledge what was peeked, 2 and 3 the same of the newest, else a tick. In the middle of them
    /// the folder can be read at last. Nothing that waited there or came meanwhile is lost, and nothing but what was on
    /// its way then goes twice.
    #[test]
    fn nothing_is_lost_when_a_folder_is_found_late(
        old in 0_u64..8, taken in 0_u64..8,
        steps in prop::collection::vec(0_usize..8, 0..40), at in any::<prop::sample::Index>(),
    ) {
        let disks = Disks::default();
        let (mut scribe, _) = disks.start_on(OURS, CAPS);
        (1..=old).for_each(|number| scribe.tell(number));
        if taken > 0 {
            let batch = scribe.spool().peek(Signal::Traces, Limits { items: taken, ..ALL });
            scribe.spool().acknowledge(Signal::Traces, batch.until);
            scribe.step(Changes::default(), None, true);
        }
        drop(scribe);
        let gate = Gate::default();
        let (mut scribe, _) = disks.start_on(gate.ground(false), CAPS);
        let (mut number, mut seen, mut peeked) = (old, (1..=old.min(taken)).collect::<Vec<_>>(), None);
        let found_at = at.index(steps.len() + 1);
        for (index, step) in steps.iter().enumerate() {
            if index == found_at {
                gate.open();
                number += 1;
                scribe.tell(number);
            }
            match step {
                0 => peeked = Some(scribe.spool().peek(Signal::Traces, Limits { items: 2, ..ALL })),
                1 => if let Some(batch) = peeked.take() {
                    seen.extend(batch.messages.iter().map(|bytes| number_of(bytes)));
                    scribe.spool().acknowledge(Signal::Traces, batch.until);
                },
                2 => {
                    // As the fresh lane does: out of turn, and nothing moves.
                    let end = scribe.spool().end(Signal::Traces).expect("an end");
                    drop(scribe.spool().peek_from(Signal::Traces, end.saturating_sub(1), ALL));
                    scribe.spool().acknowledge(Signal::Traces, 0);
                    peeked = None;
                }
                _ => {
                    number += 1;
                    scribe.tell(number);
                }
            }
        }
        gate.open();
        number += 1;
        scribe.tell(number);
        prop_assert!(scribe.desk.health().kept);
        drop(scribe);
        disks.power_cut(|| 0);
        let (scribe, _) = disks.start_on(OURS, CAPS);
        prop_assert_eq!(scribe.spool().damaged(Signal::Traces), 0);
        let left = scribe.numbers(Signal::Traces);
        prop_assert!(left.is_sorted(), "{:?}", left);
        let all: std::collections::BTreeSet<u64> = seen.iter().chain(&left).copied().collect();
        prop_assert_eq!(&all, &(1..=number).collect());
        prop_assert!(seen.len() + left.len() <= all.len() + 2, "{:?} and {:?}", seen, left);
        prop_assert_eq!(scribe.numbers(Signal::Logs), (1..=number).collect::<Vec<_>>());
    }
}
