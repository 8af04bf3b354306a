//! What a start finds in a spool's folder. The names of the segments give begin and end of all but the newest, which is
//! read and cut where it is torn or beyond what the journal knows. Changes nothing itself, because the folder may not
//! be writable yet, and no file in it makes it fail.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use super::disk_queue::Marks;
use super::segment::{self, Mark, Segment};
use super::writer::{CURSOR, CURSOR_SALT};
use crate::otlp::Signal;
use crate::storage::disk::{Disk, NEW, Step, frame};

/// What was found in the folder.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// The segments of each signal, and the position up to which they are acknowledged.
    pub(crate) queues: [(VecDeque<Segment>, Mark); 3],
    /// Changes to make before anything is written.
    pub(crate) repairs: Vec<Repair>,
}

/// A change that a folder needs before it is written again: old records would be taken for new ones.
#[derive(Debug)]
pub(crate) enum Repair {
    /// Remove this file.
    Remove(String),
    /// Truncate this file to so many bytes.
    Cut(String, u64),
}

impl Repair {
    /// Makes the change.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn make(&self, disk: &dyn Disk) -> io::Result<()> {
        match self {
            Self::Remove(name) => disk.remove(name),
            Self::Cut(name, length) => disk.cut(name, *length),
        }
    }
}

/// Reads the folder. Traces and logs from `limits` on are unknown to the journal and will be cut.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn recover(disk: &dyn Disk, limits: Option<Marks>) -> io::Result<Recovered> {
    let cursors = cursors(disk)?;
    let mut files = disk.list()?;
    files.sort();
    let mut out = Recovered::default();
    let mut found: [Vec<(Mark, u64)>; 3] = Default::default();
    for (name, bytes) in files {
        match segment::parse(&name) {
            Some((signal, first)) => found[signal.index()].push((first, bytes)),
            None if name.ends_with(NEW) => out.repairs.push(Repair::Remove(name)),
            None if name == CURSOR => {}
            None => tracing::warn!(file = name, "ignoring an unknown file in the spool's folder"),
        }
    }
    for signal in Signal::ALL {
        let cursor = cursors[signal.index()];
        let limit = limits.filter(|_| signal != Signal::Metrics).map(|limits| limits[signal.index()]);
        // What a collector accepted is not sent again, whether the journal knows it or not.
        let limit = limit.map_or(u64::MAX, |limit| limit.position.max(cursor.position));
        let segments = segments(disk, signal, &found[signal.index()], (cursor, limit), &mut out.repairs)?;
        out.queues[signal.index()] = (segments, cursor);
    }
    Ok(out)
}

fn segments(
    disk: &dyn Disk,
    signal: Signal,
    found: &[(Mark, u64)],
    (cursor, limit): (Mark, u64),
    repairs: &mut Vec<Repair>,
) -> io::Result<VecDeque<Segment>> {
    let mut out: VecDeque<Segment> = VecDeque::new();
    for (index, &(first, bytes)) in found.iter().enumerate() {
        let next = found.get(index + 1).map(|(next, _)| *next).filter(|next| next.position <= limit);
        let segment = match next {
            Some(end) => Segment { first, end, bytes },
            None => newest(disk, signal, (first, bytes), limit, repairs)?,
        };
        if segment.end <= cursor || segment.end.position <= segment.first.position {
            repairs.push(Repair::Remove(segment::name(signal, first)));
        } else {
            out.push_back(segment);
        }
    }
    Ok(out)
}

/// The newest segment, which ends with its last undamaged record.
fn newest(
    disk: &dyn Disk,
    signal: Signal,
    (first, bytes): (Mark, u64),
    limit: u64,
    repairs: &mut Vec<Repair>,
) -> io::Result<Segment> {
    let name = segment::name(signal, first);
    let content = disk.read(&name, 0, usize::try_from(bytes).unwrap_or(usize::MAX))?;
    let (end, length, damaged) = segment::end_of(&content, signal, first, limit);
    if damaged {
        tracing::warn!(segment = name, cut = bytes - length, "the newest segment of the spool is torn or damaged");
    }
    if length < bytes {
        repairs.push(Repair::Cut(name, length));
    }
    Ok(Segment { first, end, bytes: length })
}

fn cursors(disk: &dyn Disk) -> io::Result<Marks> {
    let bytes = match disk.read(CURSOR, 0, MAX_CURSOR_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Marks::default()),
        read => read?,
    };
    Ok(read_cursors(&bytes).unwrap_or_else(|| {
        tracing::warn!("the spool's cursor is damaged; its records are sent again");
        Marks::default()
    }))
}

fn read_cursors(bytes: &Bytes) -> Option<Marks> {
    match frame::read(bytes, 0, CURSOR_SALT) {
        Step::Good(found, _) => serde_json::from_slice(&found.payload).ok(),
        _ => None,
    }
}

/// Most bytes of the cursor file.
const MAX_CURSOR_BYTES: usize = 4 << 10;
