//! State and spool on a disk that forgets, fills up and rots.

use std::io;
use std::sync::Arc;

use liveqos_core::model::{Checkpoint, Entry, StreamKey, Timestamp};
use proptest::prelude::*;

use super::disk::{Disk as _, Forgetful};
use super::journal::{Changes, Lasting};
use super::spool::{Places, Spool, segment};
use super::state::*;
use super::writer::*;
use crate::otlp::{Backlog, Batch, ExportQueue as _, Limits, Record, Signal};

pub(crate) const CAPS: [u64; 3] = [1 << 30; 3];
pub(crate) const ALL: Limits = Limits { items: u64::MAX, bytes: 4 << 20 };

#[derive(Clone, Default)]
pub(crate) struct Disks {
    pub(crate) spool: Forgetful,
    pub(crate) journal: Forgetful,
}

/// A folder that is there for us.
pub(crate) const OURS: FolderAccess = FolderAccess { lock: None, opener: None, readable: true };

impl Disks {
    fn start(&self, caps: [u64; 3]) -> (StateWriter, Checkpoint) {
        let (scribe, found) = self.start_on(OURS, caps);
        (scribe, found.checkpoint)
    }

    pub(crate) fn start_on(&self, ground: FolderAccess, caps: [u64; 3]) -> (StateWriter, Lasting) {
        let place = TargetFolder { name: "main".to_owned(), disk: Arc::new(self.spool.clone()), caps };
        let health = Health { kept: ground.opener.is_none(), ..Health::default() };
        StateWriter::assemble(vec![place], Arc::new(self.journal.clone()), ground, health)
            .expect("a folder that can be read")
    }

    pub(crate) fn trouble(&self, kind: Option<io::ErrorKind>) {
        for disk in [&self.spool, &self.journal] {
            disk.trouble(kind);
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

/// A change of state that tells its number.
pub(crate) fn entry(number: u64) -> Entry {
    let stream = StreamKey::parse(&format!("live/{number:08}")).expect("a good key");
    Entry::Announced(stream, Timestamp::from_secs(number), Box::default())
}

impl StateWriter {
    pub(crate) fn spool(&self) -> &Spool {
        &self.shelves[0].spool
    }

    pub(crate) fn seal(&self) -> Places {
        Places::from([("main".to_owned(), self.spool().seal().0)])
    }

    fn group(&mut self, entries: Vec<Entry>, places: Option<Places>, last: bool) {
        self.step(Changes { entries, sampled: Vec::new() }, places, last);
    }

    /// A tick that tells a change and two records, kept as far as the disk lets it.
    pub(crate) fn tell(&mut self, number: u64) {
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

pub(crate) fn told(state: &Checkpoint) -> Vec<u64> {
    state.announced.values().map(|(at, _)| at.nanos() / 1_000_000_000).collect()
}

#[test]
fn what_was_kept_is_found_and_what_was_taken_is_not_sent_again() {
    let disks = Disks::default();
    let (mut scribe, _) = disks.start(CAPS);
    (1..=10).for_each(|number| scribe.tell(number));
    let three = Limits { items: 3, ..ALL };
    let batch = scribe.spool().peek(Signal::Traces, three);
    scribe.spool().acknowledge(Signal::Traces, batch.until);
    scribe.tell(11);
    drop(scribe);
    disks.power_cut(|| 0);
    let (scribe, state) = disks.start(CAPS);
    assert_eq!(told(&state), (1..=11).collect::<Vec<_>>());
    assert_eq!(scribe.spool().backlog(Signal::Traces).items, 8);
    assert_eq!(scribe.numbers(Signal::Traces), (4..=11).collect::<Vec<_>>());
    assert_eq!(scribe.numbers(Signal::Logs), (1..=11).collect::<Vec<_>>());
}

#[test]
fn nothing_is_seen_before_it_is_kept() {
    let (mut scribe, _) = Disks::default().start(CAPS);
    scribe.spool().append(record(Signal::Traces, 1, 0));
    let wants = scribe.spool().seal().1;
    let places = scribe.seal();
    assert!(wants && scribe.spool().peek(Signal::Traces, ALL).messages.is_empty());
    assert_eq!(scribe.spool().backlog(Signal::Traces).records, 0);
    scribe.group(Vec::new(), Some(places), false);
    assert_eq!(scribe.numbers(Signal::Traces), [1]);
}

#[test]
fn a_full_disk_is_gone_around_and_come_back_from() {
    let disks = Disks::default();
    let (mut scribe, _) = disks.start(CAPS);
    scribe.tell(1);
    disks.trouble(Some(io::ErrorKind::StorageFull));
    scribe.tell(2);
    let health = scribe.desk.health().clone();
    assert!(!health.kept && health.why.is_some(), "{health:?}");
    assert_eq!(scribe.spool().backlog(Signal::Traces).records, 2);
    let batch = scribe.spool().peek(Signal::Traces, Limits { items: 1, ..ALL });
    scribe.spool().acknowledge(Signal::Traces, batch.until);
    assert_eq!(number_of(&scribe.spool().peek(Signal::Traces, ALL).messages[0]), 2, "sent from memory meanwhile");
    scribe.tell(3);
    disks.trouble(None);
    scribe.tell(4);
    assert!(scribe.desk.health().kept);
    drop(scribe);
    disks.power_cut(|| 0);
    let (scribe, state) = disks.start(CAPS);
    assert_eq!(told(&state), [1, 2, 3, 4]);
    assert_eq!(scribe.numbers(Signal::Traces), [2, 3, 4]);
    assert_eq!(scribe.numbers(Signal::Logs), [1, 2, 3, 4]);
}

#[test]
fn beyond_the_cap_the_oldest_segments_go_and_are_counted() {
    let disks = Disks::default();
    let (mut scribe, _) = disks.start([64 << 10, 1 << 20, 1 << 20]);
    for number in 1..=400 {
        scribe.spool().append(record(Signal::Traces, number, 1_000));
        let places = scribe.seal();
        scribe.group(Vec::new(), Some(places), false);
    }
    let on_disk: u64 = disks.segments().iter().map(|(_, bytes)| bytes).sum();
    let dropped = scribe.spool().dropped(Signal::Traces);
    assert!(on_disk <= 64 << 10 && dropped > 0, "{on_disk} bytes, {dropped} dropped");
    let left = scribe.numbers(Signal::Traces);
    assert_eq!(left, (dropped + 1..=400).collect::<Vec<_>>(), "the newest, each once");
    let shelf = &mut scribe.shelves[0];
    shelf.keeper.tidy(&shelf.spool).expect("a good disk");
    assert!(disks.segments().len() <= 1, "what was taken is removed: {:?}", disks.segments());
}

#[test]
fn memory_is_bounded_while_nobody_takes_anything() {
    let (mut scribe, _) = Disks::default().start(CAPS);
    for number in 1..=40 {
        scribe.spool().append(record(Signal::Logs, number, 1 << 20));
        let places = scribe.seal();
        scribe.group(Vec::new(), Some(places), false);
    }
    assert_eq!(scribe.spool().dropped(Signal::Logs), 0);
    assert_eq!(scribe.numbers(Signal::Logs), (1..=40).collect::<Vec<_>>(), "the oldest are read back from disk");
}

#[test]
fn changes_that_no_disk_takes_are_bounded_and_counted() {
    let mut work = Work::default();
    let changes = |number| Changes { entries: vec![entry(number)], sampled: Vec::new() };
    let lost: u64 = (0..MAX_ENTRIES as u64 + 3).map(|number| work.add(changes(number))).sum();
    assert_eq!(lost, MAX_ENTRIES as u64);
    let mut state = Checkpoint::default();
    work.changes.entries.drain(..).for_each(|entry| state.apply(entry));
    assert_eq!(told(&state).len(), 3, "what came after stands, the classes of before are forgotten");
}

#[test]
fn the_newest_go_first_and_nothing_is_sent_twice_or_lost() {
    let disks = Disks::default();
    let (mut scribe, _) = disks.start(CAPS);
    (1..=10).for_each(|number| scribe.tell(number));
    let spool = scribe.spool();
    assert_eq!(spool.end(Signal::Traces), Some(10));
    let numbers = |batch: &Batch| batch.messages.iter().map(|bytes| number_of(bytes)).collect::<Vec<_>>();
    let fresh = spool.peek_from(Signal::Traces, 7, ALL);
    assert_eq!((numbers(&fresh), fresh.until), (vec![8, 9, 10], 10));
    spool.acknowledge(Signal::Traces, 0);
    assert_eq!(spool.backlog(Signal::Traces).records, 10, "a stretch out of its turn moves nothing");
    let rest = spool.peek(Signal::Traces, Limits { items: 7, ..ALL });
    assert_eq!(numbers(&rest), (1..=7).collect::<Vec<_>>());
    spool.acknowledge(Signal::Traces, 10);
    assert_eq!(spool.backlog(Signal::Traces), Backlog::default());
    scribe.tell(11);
    assert_eq!(scribe.numbers(Signal::Traces), [11]);
    drop(scribe);
    let (mut scribe, _) = disks.start(CAPS);
    scribe.spool().append(record(Signal::Logs, 12, 0));
    assert_eq!(scribe.spool().end(Signal::Logs), Some(11), "what is not kept is not seen");
    assert_eq!(
        scribe.spool().peek_from(Signal::Logs, 5, ALL),
        Batch::default(),
        "on disk alone: it goes with the rest"
    );
    let places = scribe.seal();
    scribe.group(Vec::new(), Some(places), false);
    assert_eq!(numbers(&scribe.spool().peek_from(Signal::Logs, 11, ALL)), [12]);
    scribe.spool().acknowledge(Signal::Logs, 99);
    assert_eq!(scribe.spool().backlog(Signal::Logs), Backlog::default(), "no further than there is");
}

#[test]
fn each_target_has_its_own_queue_and_is_cut_to_its_own_place() {
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
    let mut scribe = start();
    for number in 1..=3 {
        let mut places = Places::new();
        for shelf in &scribe.shelves {
            shelf.spool.append(record(Signal::Traces, number, 1));
            places.insert(shelf.name.clone(), shelf.spool.seal().0);
        }
        scribe.group(vec![entry(number)], Some(places), true);
    }
    scribe.shelves[0].spool.acknowledge(Signal::Traces, 2);
    // One target's spans reach the disk, the word of them does not.
    scribe.shelves[1].spool.append(record(Signal::Traces, 4, 1));
    let marks = scribe.shelves[1].spool.seal().0;
    let shelf = &mut scribe.shelves[1];
    shelf.keeper.write(&shelf.spool, &marks).expect("a good disk");
    scribe.group(Vec::new(), None, true);
    drop(scribe);
    let scribe = start();
    let waits: Vec<_> = scribe.shelves.iter().map(|shelf| shelf.spool.backlog(Signal::Traces).records).collect();
    assert_eq!(waits, [1, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The power fails in the middle of anything, again and again. State and spans stand as they stood after some tick,
    /// together, and not before the last one that was said to be kept.
    #[test]
    fn a_power_cut_anywhere_leaves_state_and_spans_together(
        cuts in prop::collection::vec((0_u32..24, 0_u32..24, 0_usize..6, any::<u8>()), 1..5),
    ) {
        let disks = Disks::default();
        let (mut scribe, _) = disks.start(CAPS);
        let (mut number, mut kept, mut acknowledged) = (0, 0, 0);
        for (spool, journal, take, seed) in cuts {
            disks.spool.fuse(spool);
            disks.journal.fuse(journal);
            for _ in 0..8 {
                number += 1;
                scribe.tell(number);
                if scribe.desk.health().kept {
                    kept = number;
                }
                if !scribe.trouble && take > 0 {
                    let batch = scribe.spool().peek(Signal::Traces, Limits { items: take as u64, ..ALL });
                    for message in &batch.messages {
                        acknowledged = acknowledged.max(number_of(message));
                    }
                    scribe.spool().acknowledge(Signal::Traces, batch.until);
                }
            }
            let mut luck = seed;
            let mut next = move || { luck = luck.wrapping_mul(73).wrapping_add(29); luck };
            disks.power_cut(&mut next);
            let state;
            (scribe, state) = disks.start(CAPS);
            let found = told(&state);
            number = found.len() as u64;
            prop_assert_eq!(&found, &(1..=number).collect::<Vec<_>>());
            prop_assert!(number >= kept, "{} found, {} were kept", number, kept);
            kept = number;
            let logs = scribe.spool().backlog(Signal::Logs);
            prop_assert_eq!(logs.records, number, "no record without its state, no state without its record");
            let traces = scribe.spool().backlog(Signal::Traces).records;
            prop_assert!(traces <= number && traces + acknowledged >= number);
        }
        let logs = scribe.numbers(Signal::Logs);
        prop_assert_eq!(logs, (1..=number).collect::<Vec<_>>());
        let traces = scribe.numbers(Signal::Traces);
        let first = number + 1 - traces.len() as u64;
        prop_assert_eq!(traces, (first..=number).collect::<Vec<_>>());
    }

    /// Any byte of any file is another one, any file is shorter: what is read is what was written, in order, and what
    /// is missing is counted.
    #[test]
    fn rot_costs_records_and_never_makes_one(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0_u8..8), 0..8),
    ) {
        let disks = Disks::default();
        let (mut scribe, _) = disks.start([20 << 10; 3]);
        (1..=60).for_each(|number| scribe.tell(number));
        drop(scribe);
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
        let (scribe, state) = disks.start([20 << 10; 3]);
        prop_assert!(told(&state).iter().all(|number| (1..=60).contains(number)));
        for signal in [Signal::Traces, Signal::Logs] {
            let before = scribe.spool().backlog(signal).records;
            let numbers = scribe.numbers(signal);
            prop_assert!(numbers.is_sorted() && numbers.iter().all(|number| (1..=60).contains(number)));
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "none twice");
            prop_assert_eq!(before, numbers.len() as u64 + scribe.spool().damaged(signal));
        }
    }

    /// Steps: 0 peek, 1 acknowledge what was peeked, 2 write, else append that many bytes.
    #[test]
    fn nothing_is_lost_uncounted(steps in prop::collection::vec(0_usize..60, 0..300), cap in 1_u64..12) {
        let (mut scribe, _) = Disks::default().start([cap << 10; 3]);
        let (mut appended, mut acknowledged, mut peeked) = (0, 0, None);
        for step in steps {
            match step {
                0 => peeked = Some(scribe.spool().peek(Signal::Traces, Limits { items: 3, bytes: 64 << 10 })),
                1 => if let Some(batch) = peeked.take() {
                    acknowledged += batch.items;
                    scribe.spool().acknowledge(Signal::Traces, batch.until);
                },
                2 => {
                    let places = scribe.seal();
                    scribe.group(Vec::new(), Some(places), false);
                }
                len => {
                    scribe.spool().append(record(Signal::Traces, appended, len * 20));
                    appended += 1;
                }
            }
        }
        let places = scribe.seal();
        scribe.group(Vec::new(), Some(places), false);
        if let Some(batch) = peeked {
            acknowledged += batch.items;
            scribe.spool().acknowledge(Signal::Traces, batch.until);
        }
        let left = scribe.spool().backlog(Signal::Traces).items;
        prop_assert_eq!(appended, acknowledged + left + scribe.spool().dropped(Signal::Traces));
        prop_assert_eq!(scribe.numbers(Signal::Traces).len() as u64, left);
    }
}
