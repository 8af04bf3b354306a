//! State and spool on a disk that forgets, fills up and decays.

use std::io;
use std::sync::Arc;

use liveqos_core::model::{Checkpoint, Entry, StreamKey, Timestamp};
use proptest::prelude::*;

use super::disk::{Disk as _, Forgetful};
use super::journal::{Changes, PersistentState};
use super::spool::{Spool, TargetMarks, segment};
use super::writer::*;
use super::writer_queue::{Health, MAX_ENTRIES, Work};
use crate::otlp::{Backlog, Batch, ExportQueue as _, Limits, Record, Signal};

pub(crate) const CAPS: [u64; 3] = [1 << 30; 3];
pub(crate) const ALL: Limits = Limits { items: u64::MAX, bytes: 4 << 20 };

#[derive(Clone, Default)]
pub(crate) struct Disks {
    pub(crate) spool: Forgetful,
    pub(crate) journal: Forgetful,
}

/// A folder that can be used.
pub(crate) const OURS: FolderAccess = FolderAccess { lock: None, repair: None, readable: true };

impl Disks {
    fn start(&self, caps: [u64; 3]) -> (StateWriter, Checkpoint) {
        let (writer, found) = self.start_on(OURS, caps);
        (writer, found.checkpoint)
    }

    pub(crate) fn start_on(&self, access: FolderAccess, caps: [u64; 3]) -> (StateWriter, PersistentState) {
        let place = TargetFolder { name: "main".to_owned(), disk: Arc::new(self.spool.clone()), caps };
        let health = Health { kept: access.repair.is_none(), ..Health::default() };
        StateWriter::assemble(vec![place], Arc::new(self.journal.clone()), access, health)
            .expect("a folder that can be read")
    }

    pub(crate) fn fail(&self, kind: Option<io::ErrorKind>) {
        for disk in [&self.spool, &self.journal] {
            disk.fail(kind);
        }
    }

    pub(crate) fn power_cut(&self, mut luck: impl FnMut() -> u8) {
        for disk in [&self.spool, &self.journal] {
            disk.power_cut(&mut luck);
        }
    }

    fn segments(&self) -> Vec<(String, u64)> {
        let files = self.spool.list().expect("a folder that can be read");
        files.into_iter().filter(|(name, _)| segment::parse(name).is_some()).collect()
    }
}

pub(crate) fn record(signal: Signal, number: u64, len: usize) -> Record {
    let bytes = format!("{number:08}{}", "x".repeat(len));
    Record { signal, bytes: bytes.into_bytes().into(), items: 1, urgent: false }
}

/// A change of state with this number.
pub(crate) fn entry(number: u64) -> Entry {
    let stream = StreamKey::parse(&format!("live/{number:08}")).expect("a good key");
    Entry::Announced(stream, Timestamp::from_secs(number), Box::default())
}

impl StateWriter {
    pub(crate) fn spool(&self) -> &Spool {
        &self.targets[0].spool
    }

    pub(crate) fn seal(&self) -> TargetMarks {
        TargetMarks::from([("main".to_owned(), self.spool().seal().0)])
    }

    fn group(&mut self, entries: Vec<Entry>, places: Option<TargetMarks>, last: bool) {
        self.step(Changes { entries, sampled: Vec::new() }, places, last);
    }

    /// A tick with one change and two records, kept as far as the disk allows.
    pub(crate) fn tick(&mut self, number: u64) {
        self.spool().append(record(Signal::Traces, number, 10));
        self.spool().append(record(Signal::Logs, number, 5));
        let places = self.seal();
        self.group(vec![entry(number)], Some(places), true);
    }

    pub(crate) fn numbers(&self, signal: Signal) -> Vec<u64> {
        let mut out = Vec::new();
        loop {
            let batch = self.spool().peek(signal, ALL);
            if batch.messages.is_empty() {
                return out;
            }
            out.extend(batch.messages.iter().map(|bytes| number_of(bytes)));
            self.spool().acknowledge(signal, batch.until);
        }
    }
}

pub(crate) fn number_of(bytes: &[u8]) -> u64 {
    std::str::from_utf8(&bytes[..8]).expect("as written").parse().expect("as written")
}

pub(crate) fn announced(state: &Checkpoint) -> Vec<u64> {
    state.announced.values().map(|(at, _)| at.nanos() / 1_000_000_000).collect()
}

#[test]
fn kept_state_is_found_and_acknowledged_records_are_not_sent_again() {
    let disks = Disks::default();
    let (mut writer, _) = disks.start(CAPS);
    (1..=10).for_each(|number| writer.tick(number));
    let three = Limits { items: 3, ..ALL };
    let batch = writer.spool().peek(Signal::Traces, three);
    writer.spool().acknowledge(Signal::Traces, batch.until);
    writer.tick(11);
    drop(writer);
    disks.power_cut(|| 0);
    let (writer, state) = disks.start(CAPS);
    assert_eq!(announced(&state), (1..=11).collect::<Vec<_>>());
    assert_eq!(writer.spool().backlog(Signal::Traces).items, 8);
    assert_eq!(writer.numbers(Signal::Traces), (4..=11).collect::<Vec<_>>());
    assert_eq!(writer.numbers(Signal::Logs), (1..=11).collect::<Vec<_>>());
}

#[test]
fn nothing_is_visible_before_it_is_kept() {
    let (mut writer, _) = Disks::default().start(CAPS);
    writer.spool().append(record(Signal::Traces, 1, 0));
    let unwritten = writer.spool().seal().1;
    let places = writer.seal();
    assert!(unwritten && writer.spool().peek(Signal::Traces, ALL).messages.is_empty());
    assert_eq!(writer.spool().backlog(Signal::Traces).records, 0);
    writer.group(Vec::new(), Some(places), false);
    assert_eq!(writer.numbers(Signal::Traces), [1]);
}

#[test]
fn a_full_disk_is_bypassed_until_it_has_room() {
    let disks = Disks::default();
    let (mut writer, _) = disks.start(CAPS);
    writer.tick(1);
    disks.fail(Some(io::ErrorKind::StorageFull));
    writer.tick(2);
    let health = writer.queue.health().clone();
    assert!(!health.kept && health.why.is_some(), "{health:?}");
    assert_eq!(writer.spool().backlog(Signal::Traces).records, 2);
    let batch = writer.spool().peek(Signal::Traces, Limits { items: 1, ..ALL });
    writer.spool().acknowledge(Signal::Traces, batch.until);
    assert_eq!(number_of(&writer.spool().peek(Signal::Traces, ALL).messages[0]), 2, "sent from memory meanwhile");
    writer.tick(3);
    disks.fail(None);
    writer.tick(4);
    assert!(writer.queue.health().kept);
    drop(writer);
    disks.power_cut(|| 0);
    let (writer, state) = disks.start(CAPS);
    assert_eq!(announced(&state), [1, 2, 3, 4]);
    assert_eq!(writer.numbers(Signal::Traces), [2, 3, 4]);
    assert_eq!(writer.numbers(Signal::Logs), [1, 2, 3, 4]);
}

#[test]
fn beyond_the_bound_the_oldest_segments_are_dropped_and_counted() {
    let disks = Disks::default();
    let (mut writer, _) = disks.start([64 << 10, 1 << 20, 1 << 20]);
    for number in 1..=400 {
        writer.spool().append(record(Signal::Traces, number, 1_000));
        let places = writer.seal();
        writer.group(Vec::new(), Some(places), false);
    }
    let on_disk: u64 = disks.segments().iter().map(|(_, bytes)| bytes).sum();
    let dropped = writer.spool().dropped(Signal::Traces);
    assert!(on_disk <= 64 << 10 && dropped > 0, "{on_disk} bytes, {dropped} dropped");
    let left = writer.numbers(Signal::Traces);
    assert_eq!(left, (dropped + 1..=400).collect::<Vec<_>>(), "the newest, each once");
    let target = &mut writer.targets[0];
    target.writer.remove_segments(&target.spool).expect("a good disk");
    assert!(disks.segments().len() <= 1, "acknowledged segments are removed: {:?}", disks.segments());
}

#[test]
fn memory_is_bounded_while_nothing_is_acknowledged() {
    let (mut writer, _) = Disks::default().start(CAPS);
    for number in 1..=40 {
        writer.spool().append(record(Signal::Logs, number, 1 << 20));
        let places = writer.seal();
        writer.group(Vec::new(), Some(places), false);
    }
    assert_eq!(writer.spool().dropped(Signal::Logs), 0);
    assert_eq!(writer.numbers(Signal::Logs), (1..=40).collect::<Vec<_>>(), "the oldest are read back from disk");
}

#[test]
fn changes_that_cannot_be_written_are_bounded_and_counted() {
    let mut work = Work::default();
    let changes = |number| Changes { entries: vec![entry(number)], sampled: Vec::new() };
    let lost: u64 = (0..MAX_ENTRIES as u64 + 3).map(|number| work.add(changes(number))).sum();
    assert_eq!(lost, MAX_ENTRIES as u64);
    let mut state = Checkpoint::default();
    work.changes.entries.drain(..).for_each(|entry| state.apply(entry));
    assert_eq!(announced(&state).len(), 3, "later changes are kept, earlier classes are forgotten");
}

#[test]
fn the_newest_are_sent_first_and_nothing_twice_or_never() {
    let disks = Disks::default();
    let (mut writer, _) = disks.start(CAPS);
    (1..=10).for_each(|number| writer.tick(number));
    let spool = writer.spool();
    assert_eq!(spool.end(Signal::Traces), Some(10));
    let numbers = |batch: &Batch| batch.messages.iter().map(|bytes| number_of(bytes)).collect::<Vec<_>>();
    let fresh = spool.peek_from(Signal::Traces, 7, ALL);
    assert_eq!((numbers(&fresh), fresh.until), (vec![8, 9, 10], 10));
    spool.acknowledge(Signal::Traces, 0);
    assert_eq!(spool.backlog(Signal::Traces).records, 10, "a batch out of order acknowledges nothing");
    let rest = spool.peek(Signal::Traces, Limits { items: 7, ..ALL });
    assert_eq!(numbers(&rest), (1..=7).collect::<Vec<_>>());
    spool.acknowledge(Signal::Traces, 10);
    assert_eq!(spool.backlog(Signal::Traces), Backlog::default());
    writer.tick(11);
    assert_eq!(writer.numbers(Signal::Traces), [11]);
    drop(writer);
    let (mut writer, _) = disks.start(CAPS);
    writer.spool().append(record(Signal::Logs, 12, 0));
    assert_eq!(writer.spool().end(Signal::Logs), Some(11), "what is not kept is not visible");
    assert_eq!(writer.spool().peek_from(Signal::Logs, 5, ALL), Batch::default(), "only on disk: sent with the backlog");
    let places = writer.seal();
    writer.group(Vec::new(), Some(places), false);
    assert_eq!(numbers(&writer.spool().peek_from(Signal::Logs, 11, ALL)), [12]);
    writer.spool().acknowledge(Signal::Logs, 99);
    assert_eq!(writer.spool().backlog(Signal::Logs), Backlog::default(), "not beyond the end");
}

#[test]
fn each_target_has_its_own_queue_and_is_cut_at_its_own_position() {
    let (main, copy, journal) = (Forgetful::default(), Forgetful::default(), Forgetful::default());
    let start = || {
        let place = |name: &str, disk: &Forgetful| TargetFolder {
            name: name.to_owned(),
            disk: Arc::new(disk.clone()),
            caps: CAPS,
        };
        let places = vec![place("main", &main), place("copy", &copy)];
        StateWriter::assemble(places, Arc::new(journal.clone()), OURS, Health { kept: true, ..Health::default() })
            .expect("readable")
            .0
    };
    let mut writer = start();
    for number in 1..=3 {
        let mut places = TargetMarks::new();
        for target in &writer.targets {
            target.spool.append(record(Signal::Traces, number, 1));
            places.insert(target.name.clone(), target.spool.seal().0);
        }
        writer.group(vec![entry(number)], Some(places), true);
    }
    writer.targets[0].spool.acknowledge(Signal::Traces, 2);
    // One target's spans reach the disk, the journal that knows them does not.
    writer.targets[1].spool.append(record(Signal::Traces, 4, 1));
    let marks = writer.targets[1].spool.seal().0;
    let target = &mut writer.targets[1];
    target.writer.write(&target.spool, &marks).expect("a good disk");
    writer.group(Vec::new(), None, true);
    drop(writer);
    let writer = start();
    let queued: Vec<_> = writer.targets.iter().map(|target| target.spool.backlog(Signal::Traces).records).collect();
    assert_eq!(queued, [1, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The power fails at any operation, again and again. State and spans are both those of one tick, which is not
    /// before the last one that was reported as kept.
    #[test]
    fn a_power_cut_anywhere_keeps_state_and_spans_together(
        cuts in prop::collection::vec((0_u32..24, 0_u32..24, 0_usize..6, any::<u64>()), 1..5),
    ) {
        let disks = Disks::default();
        let (mut writer, _) = disks.start(CAPS);
        let (mut number, mut kept, mut acknowledged) = (0, 0, 0);
        for (spool, journal, take, seed) in cuts {
            disks.spool.fuse(spool);
            disks.journal.fuse(journal);
            for _ in 0..8 {
                number += 1;
                writer.tick(number);
                if writer.queue.health().kept {
                    kept = number;
                }
                if !writer.failing && take > 0 {
                    let batch = writer.spool().peek(Signal::Traces, Limits { items: take as u64, ..ALL });
                    for message in &batch.messages {
                        acknowledged = acknowledged.max(number_of(message));
                    }
                    writer.spool().acknowledge(Signal::Traces, batch.until);
                }
            }
            let mut rng = fastrand::Rng::with_seed(seed);
            disks.power_cut(move || rng.u8(..));
            let state;
            (writer, state) = disks.start(CAPS);
            let found = announced(&state);
            number = found.len() as u64;
            prop_assert_eq!(&found, &(1..=number).collect::<Vec<_>>());
            prop_assert!(number >= kept, "{} found, {} were kept", number, kept);
            kept = number;
            let logs = writer.spool().backlog(Signal::Logs);
            prop_assert_eq!(logs.records, number, "no record without its state, no state without its record");
            let traces = writer.spool().backlog(Signal::Traces).records;
            prop_assert!(traces <= number && traces + acknowledged >= number);
        }
        let logs = writer.numbers(Signal::Logs);
        prop_assert_eq!(logs, (1..=number).collect::<Vec<_>>());
        let traces = writer.numbers(Signal::Traces);
        let first = number + 1 - traces.len() as u64;
        prop_assert_eq!(traces, (first..=number).collect::<Vec<_>>());
    }

    /// Any bytes of any file are changed, any file is cut: what is read was written, in order, and what is missing is
    /// counted.
    #[test]
    fn damage_loses_records_and_never_makes_one(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0_u8..8), 0..8),
    ) {
        let disks = Disks::default();
        let (mut writer, _) = disks.start([20 << 10; 3]);
        (1..=60).for_each(|number| writer.tick(number));
        drop(writer);
        let mut files: Vec<_> = disks.segments().into_iter().map(|(name, _)| (&disks.spool, name)).collect();
        files.push((&disks.spool, "cursor".to_owned()));
        files.extend(disks.journal.list().expect("readable").into_iter().map(|(name, _)| (&disks.journal, name)));
        for (file, at, value, kind) in damage {
            let (disk, name) = &files[file.index(files.len())];
            disk.with(name, |bytes| {
                let at = at.index(bytes.len() + 1);
                match kind {
                    0 => bytes.truncate(at),
                    _ => if let Some(byte) = bytes.get_mut(at) { *byte = value },
                }
            });
        }
        let (writer, state) = disks.start([20 << 10; 3]);
        prop_assert!(announced(&state).iter().all(|number| (1..=60).contains(number)));
        for signal in [Signal::Traces, Signal::Logs] {
            let before = writer.spool().backlog(signal).records;
            let numbers = writer.numbers(signal);
            prop_assert!(numbers.is_sorted() && numbers.iter().all(|number| (1..=60).contains(number)));
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "none twice");
            prop_assert_eq!(before, numbers.len() as u64 + writer.spool().damaged(signal));
        }
    }

    /// Steps: 0 peeks, 1 acknowledges the peeked batch, 2 writes, others append that many bytes.
    #[test]
    fn every_lost_record_is_counted(steps in prop::collection::vec(0_usize..60, 0..300), cap in 1_u64..12) {
        let (mut writer, _) = Disks::default().start([cap << 10; 3]);
        let (mut appended, mut acknowledged, mut peeked) = (0, 0, None);
        for step in steps {
            match step {
                0 => peeked = Some(writer.spool().peek(Signal::Traces, Limits { items: 3, bytes: 64 << 10 })),
                1 => if let Some(batch) = peeked.take() {
                    acknowledged += batch.items;
                    writer.spool().acknowledge(Signal::Traces, batch.until);
                },
                2 => {
                    let places = writer.seal();
                    writer.group(Vec::new(), Some(places), false);
                }
                len => {
                    writer.spool().append(record(Signal::Traces, appended, len * 20));
                    appended += 1;
                }
            }
        }
        let places = writer.seal();
        writer.group(Vec::new(), Some(places), false);
        if let Some(batch) = peeked {
            acknowledged += batch.items;
            writer.spool().acknowledge(Signal::Traces, batch.until);
        }
        let left = writer.spool().backlog(Signal::Traces).items;
        prop_assert_eq!(appended, acknowledged + left + writer.spool().dropped(Signal::Traces));
        prop_assert_eq!(writer.numbers(Signal::Traces).len() as u64, left);
    }
}
