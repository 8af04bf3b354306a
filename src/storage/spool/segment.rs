//! A segment: one file of records of one signal. Its name alone gives its position in the queue. Records can be read
//! from any offset; damaged ones and those of another file are skipped.

use bytes::Bytes;

use crate::otlp::{Limits, Record, Signal};
use crate::storage::disk::{Disk, Frame, Step, frame};

/// A position in a signal's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// Records before it since the queue began.
    pub position: u64,
    /// Spans, log records or data points in them.
    pub item: u64,
}

impl Mark {
    /// The position after a record of so many items.
    #[must_use]
    pub const fn after(self, items: u32) -> Self {
        Self { position: self.position.saturating_add(1), item: self.item.saturating_add(items as u64) }
    }
}

/// A segment in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The position of its first record.
    pub first: Mark,
    /// The position after its last record.
    pub end: Mark,
    /// Length of the file in bytes.
    pub bytes: u64,
}

/// The file name of the segment that begins at `first`.
#[must_use]
pub fn name(signal: Signal, first: Mark) -> String {
    format!("{}-{:020}-{:020}{EXTENSION}", signal.as_str(), first.position, first.item)
}

/// Signal and first position of the segment with this file name; `None` where it is not one.
#[must_use]
pub fn parse(name: &str) -> Option<(Signal, Mark)> {
    let mut parts = name.strip_suffix(EXTENSION)?.split('-');
    let (signal, position, item) = (parts.next()?, parts.next()?, parts.next()?);
    let signal = Signal::ALL.into_iter().find(|known| known.as_str() == signal)?;
    let mark = Mark { position: position.parse().ok()?, item: item.parse().ok()? };
    (parts.next().is_none() && self::name(signal, mark) == name).then_some((signal, mark))
}

/// The first bytes of a segment, readable for people and `file(1)`.
#[must_use]
pub fn header(signal: Signal) -> Vec<u8> {
    format!("{:<31}\n", format!("liveqos spool {VERSION} {}", signal.as_str())).into_bytes()
}

/// Appends a record to the bytes to write.
pub fn write(out: &mut Vec<u8>, signal: Signal, position: u64, record: &Record) {
    frame::write(out, salt(signal), (record.items << 1 | u32::from(record.urgent), position), &record.bytes);
}

/// A part of a segment to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The segment.
    pub segment: Segment,
    /// The first record to return.
    pub from: Mark,
    /// The file offset to begin at.
    pub offset: u64,
}

/// What was read of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Encoded messages, oldest first.
    pub messages: Vec<Bytes>,
    /// Items in them.
    pub items: u64,
    /// The position after the last of them.
    pub until: Mark,
    /// The file offset of that position.
    pub offset: u64,
    /// Records in between that are damaged.
    pub damaged: u64,
}

/// Reads records of `part` within `limits`, at least one where there is an undamaged one.
///
/// # Errors
/// When the file cannot be read.
pub fn take(disk: &dyn Disk, signal: Signal, part: &Part, limits: Limits) -> std::io::Result<Taken> {
    let (name, end) = (name(signal, part.segment.first), part.segment.end);
    let mut taken = Taken { until: part.from, offset: part.offset.max(HEADER), ..Taken::default() };
    let (mut bytes, mut at, mut want) = (Bytes::new(), 0, expected(&part.segment, limits));
    let (mut room, mut whole) = (limits.bytes, false);
    loop {
        let step = frame::read(&bytes, at, salt(signal));
        let to = match step {
            // Written, unknown to the journal, and written again elsewhere.
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
    // The segment has no more records: those it should still contain are lost.
    taken.damaged = taken.damaged.saturating_add(end.position.saturating_sub(taken.until.position));
    taken.until = end;
    Ok(taken)
}

/// How many bytes to read for as many items as allowed, by the segment's mean size; bytes read beyond them are read
/// again with the next batch.
fn expected(segment: &Segment, limits: Limits) -> usize {
    let records = segment.end.position.saturating_sub(segment.first.position).max(1);
    let most = limits.items.saturating_mul(segment.bytes / records + 1);
    limits.bytes.min(usize::try_from(most).unwrap_or(usize::MAX)).clamp(SMALLEST_READ, LARGEST_READ)
}

impl Taken {
    /// Adds a record; `false` where there is no room for it.
    fn add(&mut self, found: &Frame, limits: Limits, room: &mut usize) -> bool {
        let items = found.tag >> 1;
        let len = crate::otlp::request::field_len(found.payload.len());
        if !self.messages.is_empty() && (self.items + u64::from(items) > limits.items || len > *room) {
            return false;
        }
        *room = room.saturating_sub(len);
        let lost = found.number - self.until.position;
        self.damaged = self.damaged.saturating_add(lost);
        // A lost record counts as one item; the next segment's name corrects that.
        self.until = Mark { position: found.number, item: self.until.item.saturating_add(lost) }.after(items);
        self.items += u64::from(items);
        self.messages.push(found.payload.clone());
        true
    }
}

/// The position after the last record of a file that begins with `first`, the file offset of that, and whether there is
/// damage or a record from position `limit` on.
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

/// The salt of this signal's records.
const fn salt(signal: Signal) -> u32 {
    0x4c51_5300 + VERSION * 16 + signal.index() as u32
}

/// The file offset of the first record.
pub const HEADER: u64 = 32;
const VERSION: u32 = 1;
const EXTENSION: &str = ".spool";
const SMALLEST_READ: usize = 64 << 10;
const LARGEST_READ: usize = 4 << 20;
