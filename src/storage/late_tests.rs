//! A folder that at the start can only be read, or not even that, and can be used later.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::journal::{Changes, PersistentState};
use super::tests::{ALL, CAPS, Disks, OURS, announced, number_of, record};
use super::writer::{FolderRepair, *};
use crate::otlp::{ExportQueue as _, Limits, Signal};

/// A folder that can be used once the test opens it.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn access(&self, readable: bool) -> FolderAccess {
        FolderAccess { lock: None, repair: Some(Box::new(self.clone())), readable }
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
fn a_folder_that_is_read_only_at_the_start_is_continued_and_used_later() {
    let disks = Disks::default();
    let (mut writer, _) = disks.start_on(OURS, CAPS);
    (1..=3).for_each(|number| writer.tick(number));
    // A record that the journal does not know, and that must not be taken for another later.
    writer.spool().append(record(Signal::Logs, 99, 5));
    let marks = writer.spool().seal().0;
    let target = &mut writer.targets[0];
    target.writer.write(&target.spool, &marks).expect("a good disk");
    drop(writer);
    disks.fail(Some(io::ErrorKind::ReadOnlyFilesystem));
    let gate = Gate::default();
    let (mut writer, found) = disks.start_on(gate.access(true), CAPS);
    assert_eq!(announced(&found.checkpoint), [1, 2, 3], "the state that could be read is continued");
    writer.tick(4);
    let health = writer.queue.health().clone();
    assert!(!health.kept && health.why.is_some(), "{health:?}");
    let batch = writer.spool().peek(Signal::Traces, Limits { items: 2, ..ALL });
    assert_eq!(number_of(&batch.messages[0]), 1, "queued records are sent meanwhile");
    writer.spool().acknowledge(Signal::Traces, batch.until);
    gate.open();
    writer.tick(5);
    assert!(!writer.queue.health().kept, "the folder is prepared, the disk still fails");
    disks.fail(None);
    writer.tick(6);
    assert!(writer.queue.health().kept);
    drop(writer);
    disks.power_cut(|| 0);
    let (writer, found) = disks.start_on(OURS, CAPS);
    assert_eq!(announced(&found.checkpoint), [1, 2, 3, 4, 5, 6]);
    assert_eq!(writer.numbers(Signal::Traces), [3, 4, 5, 6]);
    assert_eq!(writer.numbers(Signal::Logs), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_is_found_late_is_returned_once() {
    let disks = Disks::default();
    let (mut writer, _) = disks.start_on(OURS, CAPS);
    (1..=3).for_each(|number| writer.tick(number));
    drop(writer);
    let gate = Gate::default();
    let (mut writer, found) = disks.start_on(gate.access(false), CAPS);
    assert_eq!(found, PersistentState::default());
    writer.tick(4);
    assert!(writer.queue.work().found.is_none());
    gate.open();
    writer.tick(5);
    let found = writer.queue.work().found.take().expect("the earlier state");
    assert_eq!(announced(&found.checkpoint), [1, 2, 3]);
    assert!(writer.queue.health().kept);
    drop(writer);
    disks.power_cut(|| 0);
    let (writer, found) = disks.start_on(OURS, CAPS);
    assert_eq!(announced(&found.checkpoint), [4, 5], "the earlier state is kept again by whoever continues it");
    assert_eq!(writer.numbers(Signal::Traces), [1, 2, 3, 4, 5], "the older records are sent first");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Steps: 0 peeks, 1 acknowledges the peeked batch, 2 peeks the newest, others are a tick. Somewhere between them
    /// the folder becomes readable. Nothing queued there or appended meanwhile is lost, and only what was in flight
    /// then is sent twice.
    #[test]
    fn nothing_is_lost_when_a_folder_is_found_late(
        old in 0_u64..8, taken in 0_u64..8,
        steps in prop::collection::vec(0_usize..8, 0..40), at in any::<prop::sample::Index>(),
    ) {
        let disks = Disks::default();
        let (mut writer, _) = disks.start_on(OURS, CAPS);
        (1..=old).for_each(|number| writer.tick(number));
        if taken > 0 {
            let batch = writer.spool().peek(Signal::Traces, Limits { items: taken, ..ALL });
            writer.spool().acknowledge(Signal::Traces, batch.until);
            writer.step(Changes::default(), None, true);
        }
        drop(writer);
        let gate = Gate::default();
        let (mut writer, _) = disks.start_on(gate.access(false), CAPS);
        let (mut number, mut seen, mut peeked) = (old, (1..=old.min(taken)).collect::<Vec<_>>(), None);
        let found_at = at.index(steps.len() + 1);
        for (index, step) in steps.iter().enumerate() {
            if index == found_at {
                gate.open();
                number += 1;
                writer.tick(number);
            }
            match step {
                0 => peeked = Some(writer.spool().peek(Signal::Traces, Limits { items: 2, ..ALL })),
                1 => if let Some(batch) = peeked.take() {
                    seen.extend(batch.messages.iter().map(|bytes| number_of(bytes)));
                    writer.spool().acknowledge(Signal::Traces, batch.until);
                },
                2 => {
                    // As the fresh lane does: out of order, acknowledging nothing.
                    let end = writer.spool().end(Signal::Traces).expect("an end");
                    drop(writer.spool().peek_from(Signal::Traces, end.saturating_sub(1), ALL));
                    writer.spool().acknowledge(Signal::Traces, 0);
                    peeked = None;
                }
                _ => {
                    number += 1;
                    writer.tick(number);
                }
            }
        }
        gate.open();
        number += 1;
        writer.tick(number);
        prop_assert!(writer.queue.health().kept);
        drop(writer);
        disks.power_cut(|| 0);
        let (writer, _) = disks.start_on(OURS, CAPS);
        prop_assert_eq!(writer.spool().damaged(Signal::Traces), 0);
        let left = writer.numbers(Signal::Traces);
        prop_assert!(left.is_sorted(), "{:?}", left);
        let all: std::collections::BTreeSet<u64> = seen.iter().chain(&left).copied().collect();
        prop_assert_eq!(&all, &(1..=number).collect());
        prop_assert!(seen.len() + left.len() <= all.len() + 2, "{:?} and {:?}", seen, left);
        prop_assert_eq!(writer.numbers(Signal::Logs), (1..=number).collect::<Vec<_>>());
    }
}
