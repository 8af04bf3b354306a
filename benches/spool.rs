//! The spool's segments beside a kept crate (redb): 100,000 records of 1 kB in durable groups of 500, then drained in
//! the same groups. `cargo bench --bench spool`; with `-- --test` one small pass.

use std::path::Path;
use std::time::{Duration, Instant};

use liveqos::otlp::{Limits, Record, Signal};
use liveqos::storage::disk::{Disk as _, Folder};
use liveqos::storage::spool::{HEADER, Mark, Part, Segment, segment};
use redb::{Database, ReadableTable as _, TableDefinition};

const GROUP: u64 = 500;
const TABLE: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("queue");

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let small = std::env::args().any(|argument| argument == "--test");
    let groups = if small { 4 } else { 200 };
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (segments(folder.path(), groups), redb(folder.path(), groups));
    println!("{} records of 1 kB in durable groups of {GROUP}, records a second", groups * GROUP);
    for (what, ours, theirs) in [("append", ours.0, theirs.0), ("drain", ours.1, theirs.1)] {
        let rate = |time: Duration| (groups * GROUP) as f64 / time.as_secs_f64();
        println!(
            "{what:<8} {:>9.0}  redb {:>9.0}  {:.2} x redb's time",
            rate(ours),
            rate(theirs),
            ours.as_secs_f64() / theirs.as_secs_f64()
        );
    }
}

fn record() -> Record {
    // Half of it differs from byte to byte, as encoded spans do.
    let bytes: Vec<u8> = (0..1_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Record { signal: Signal::Traces, bytes: bytes.into(), items: 1, urgent: false }
}

/// Our segments: time to append and to drain.
fn segments(folder: &Path, groups: u64) -> (Duration, Duration) {
    let disk = Folder::open(&folder.join("segments")).expect("a folder");
    let record = record();
    let began = Instant::now();
    let mut file = disk.create(&segment::name(Signal::Traces, Mark::default())).expect("a file");
    file.append(&segment::header(Signal::Traces)).expect("room");
    let mut written = HEADER;
    for group in 0..groups {
        let mut buffer = Vec::new();
        (0..GROUP).for_each(|at| segment::write(&mut buffer, Signal::Traces, group * GROUP + at, &record));
        file.append(&buffer).expect("room");
        file.sync().expect("a good disk");
        written += buffer.len() as u64;
    }
    let appended = began.elapsed();
    let began = Instant::now();
    let end = Mark { position: groups * GROUP, item: groups * GROUP };
    let segment = Segment { first: Mark::default(), end, bytes: written };
    let mut part = Part { segment, from: Mark::default(), offset: 0 };
    while part.from < end {
        let taken = segment::take(&disk, Signal::Traces, &part, Limits { items: GROUP, bytes: 1 << 20 });
        let taken = taken.expect("a good disk");
        (part.from, part.offset) = (taken.until, taken.offset);
    }
    (appended, began.elapsed())
}

/// The same with redb: one durable transaction a group.
fn redb(folder: &Path, groups: u64) -> (Duration, Duration) {
    let database = Database::create(folder.join("redb")).expect("a database");
    let record = record();
    let began = Instant::now();
    for group in 0..groups {
        let transaction = database.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for at in 0..GROUP {
                table.insert(group * GROUP + at, &record.bytes[..]).expect("room");
            }
        }
        transaction.commit().expect("a good disk");
    }
    let appended = began.elapsed();
    let began = Instant::now();
    for group in 0..groups {
        let transaction = database.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            let range = group * GROUP..(group + 1) * GROUP;
            let read: usize =
                table.range(range.clone()).expect("a range").flatten().map(|(_, value)| value.value().len()).sum();
            assert!(read as u64 >= GROUP);
            table.retain_in(range, |_, _| false).expect("removed");
        }
        transaction.commit().expect("a good disk");
    }
    (appended, began.elapsed())
}
