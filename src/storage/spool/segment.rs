//! A segment: one file of records of one signal. Decides its name, which alone tells where it stands in the queue, and
//! reads it from any place; refuses records that are not whole or not its own.

use bytes::Bytes;

use crate::otlp::{Limits, Record, Signal};
use crate::storage::disk::{Disk, Frame, Step, frame};

/// A place in a signal's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// Records before it since the queue began.
    pub position: u64,
    /// Spans, log records or data points in them.
    pub item: u64,
}

impl Mark {
    /// The place behind a record of so many items.
    #[must_use]
    pub const fn after(self, items: u32) -> Self {
        Self { position: self.position.saturating_add(1), item: self.item.saturating_add(items as u64) }
    }
}

/// A segment as the queue knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first record's place.
    pub first: Mark,
    /// The place behind its last record.
    pub end: Mark,
    /// Length of the file.
    pub bytes: u64,
}

/// The file of the segment that begins at `first`.
#[must_use]
pub fn name(signal: Signal, first: Mark) -> String {
    format!("{}-{:020}-{:020}{EXTENSION}", signal.as_str(), first.position, first.item)
}

/// Which segment a file is, where it is one.
#[must_use]
pub fn parse(name: &str) -> Option<(Signal, Mark)> {
    let mut parts = name.strip_suffix(EXTENSION)?.split('-');
    let (signal, position, item) = (parts.next()?, parts.next()?, parts.next()?);
    let signal = Signal::ALL.into_iter().find(|known| known.as_str() == signal)?;
    let mark = Mark { position: position.parse().ok()?, item: item.parse().ok()? };
    (parts.next().is_none() && self::name(signal, mark) == name).then_some((signal, mark))
}

/// The first bytes of a segment, for people and file(1).
#[must_use]
pub fn header(signal: Signal) -> Vec<u8> {
    format!("{:<31}\n", format!("liveqos spool {VERSION} {}", signal.as_str())).into_bytes()
}

/// Appends a record to what will be written.
pub fn write(out: &mut Vec<u8>, signal: Signal, position: u64, record: &Record) {
    frame::write(out, salt(signal), (record.items << 1 | u32::from(record.urgent), position), &record.bytes);
}

/// A part of a segment to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The segment.
    pub segment: Segment,
    /// The first record wanted.
    pub from: Mark,
    /// Where in the file it is looked for.
    pub offset: u64,
}

/// What a part gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Encoded messages, oldest first.
    pub messages: Vec<Bytes>,
    /// Items in them.
    pub items: u64,
    /// The place behind the last of them.
    pub until: Mark,
    /// Where in the file that is.
    pub offset: u64,
    /// Records that should have been between and are damaged.
    pub damaged: u64,
}

/// Reads records of `part` within `limits`, at least one where there is a good one.
///
/// # Errors
/// When the file cannot be read; nothing was taken then.
pub fn take(disk: &dyn Disk, signal: Signal, part: &Part, limits: Limits) -> std::io::Result<Taken> {
    let (name, end) = (name(signal, part.segment.first), part.segment.end);
    let mut taken = Taken { until: part.from, offset: part.offset.max(HEADER), ..Taken::default() };
    let (mut bytes, mut at, mut want) = (Bytes::new(), 0, expected(&part.segment, limits));
    let (mut room, mut whole) = (limits.bytes, false);
    loop {
        let step = frame::read(&bytes, at, salt(signal));
        let to = match step {
            // Written, never told of, written again elsewhere.
            Step::Good(found, _) if found.number >= end.position => break,
            Step::Good(found, to) => {
                if found.number >= taken.until.position && !taken.add(&found, limits, &mut room) {
                    return Ok(taken);
                }
                to
            }
            Step::Damaged(to) => to,
            Step::Needs(_) | Step::End if whole => match step {
                Step::End => break,
                _ => at + 1,
            },
            Step::Needs(_) | Step::End => {
                if let Step::Needs(more) = step {
                    want = want.max(more);
                }
                bytes = disk.read(&name, taken.offset, want)?;
                whole = bytes.len() < want;
                at = 0;
                continue;
            }
        };
        taken.offset += (to - at) as u64;
        at = to;
    }
    // The segment has no more: what it should still hold is lost.
    taken.damaged = taken.damaged.saturating_add(end.position.saturating_sub(taken.until.position));
    taken.until = end;
    Ok(taken)
}

/// How much to read for as many items as there may be, by the segment's mean: what is read beyond them is read again
/// with the next.
fn expected(segment: &Segment, limits: Limits) -> usize {
    let records = segment.end.position.saturating_sub(segment.first.position).max(1);
    let most = limits.items.saturating_mul(segment.bytes / records + 1);
    limits.bytes.min(usize::try_from(most).unwrap_or(usize::MAX)).clamp(SMALLEST_READ, LARGEST_READ)
}

impl Taken {
    /// Takes a record in; `false` where it has no room any more.
    fn add(&mut self, found: &Frame, limits: Limits, room: &mut usize) -> bool {
        let items = found.tag >> 1;
        let len = crate::otlp::request::field_len(found.payload.len());
        if !self.messages.is_empty() && (self.items + u64::from(items) > limits.items || len > *room) {
            return false;
        }
        *room = room.saturating_sub(len);
        let lost = found.number - self.until.position;
        self.damaged = self.damaged.saturating_add(lost);
        // A lost record is taken for one item until the next segment's name tells better.
        self.until = Mark { position: found.number, item: self.until.item.saturating_add(lost) }.after(items);
        self.items += u64::from(items);
        self.messages.push(found.payload.clone());
        true
    }
}

/// The end of the records in a file that begins with `first` and belongs to nobody yet, and where their bytes end.
#[must_use]
pub fn end_of(bytes: &Bytes, signal: Signal, first: Mark, limit: u64) -> (Mark, u64, bool) {
    let (good, damaged) = frame::read_all(bytes, HEADER as usize, salt(signal));
    let (mut end, mut length) = (first, HEADER.min(bytes.len() as u64));
    for (frame, to) in good {
        if frame.number >= limit {
            return (end, length, true);
        }
        if frame.number >= end.position {
            let lost = frame.number - end.position;
            end = Mark { position: frame.number, item: end.item.saturating_add(lost) }.after(frame.tag >> 1);
        }
        length = to as u64;
    }
    (end, length, !damaged.is_empty())
}

/// What tells this signal's records from all others.
const fn salt(signal: Signal) -> u32 {
    0x4c51_5300 + VERSION * 16 + signal.index() as u32
}

/// Where the records begin.
pub const HEADER: u64 = 32;
const VERSION: u32 = 1;
const EXTENSION: &str = ".spool";
const SMALLEST_READ: usize = 64 << 10;
const LARGEST_READ: usize = 4 << 20;
