//! Writes the spool, a group of records at a time. Decides when a segment is full and which segments are removed.
//! Records count as kept only after the disk has synced them.

use std::io;
use std::sync::Arc;

use super::disk_queue::{Marks, Spool, notify};
use super::segment::{self, HEADER, Mark, Segment};
use crate::otlp::Signal;
use crate::storage::disk::{Appender, Disk, frame};

/// Writes the queues of one target.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    disk: Arc<dyn Disk>,
    growing: [Option<Growing>; 3],
    /// Most bytes of each signal on disk.
    caps: [u64; 3],
    /// The cursors as last written.
    cursors: Option<Marks>,
}

/// The segment being written.
#[derive(Debug)]
struct Growing {
    segment: Segment,
    file: Box<dyn Appender>,
    named: bool,
}

/// What was written of each signal and is not yet visible: the position reached, and the segments.
pub(crate) type Written = [Option<(Mark, Vec<Segment>)>; 3];

impl SpoolWriter {
    pub(crate) fn new(disk: Arc<dyn Disk>, caps: [u64; 3]) -> Self {
        Self { disk, growing: [None, None, None], caps, cursors: None }
    }

    /// Writes all records before `until`; on disk when this returns.
    ///
    /// # Errors
    /// Those of the disk. Nothing counts as kept then, and the next attempt begins new segments.
    pub(crate) fn write(&mut self, spool: &Spool, until: &Marks) -> io::Result<Written> {
        let mut written: Written = [None, None, None];
        for signal in Signal::ALL {
            match self.write_signal(spool, signal, until[signal.index()]) {
                Ok(segments) => written[signal.index()] = segments,
                Err(error) => {
                    self.growing = [None, None, None];
                    return Err(error);
                }
            }
        }
        Ok(written)
    }

    fn write_signal(&mut self, spool: &Spool, signal: Signal, until: Mark) -> io::Result<Option<(Mark, Vec<Segment>)>> {
        let records = spool.with(signal, |queue| queue.unwritten(until));
        let Some((first, _)) = records.first() else {
            return Ok(None);
        };
        let (mut at, mut buffer, mut done) = (*first, Vec::new(), Vec::new());
        for (mark, record) in &records {
            let full = self.growing[signal.index()].as_ref().is_none_or(|growing| {
                growing.segment.end != *mark && buffer.is_empty()
                    || growing.segment.bytes + buffer.len() as u64 >= self.segment_bytes(signal)
            });
            if full || at != *mark {
                done.extend(self.flush(signal, &mut buffer, at)?);
                self.begin(signal, *mark)?;
            }
            segment::write(&mut buffer, signal, mark.position, record);
            at = mark.after(record.items);
        }
        done.extend(self.flush(signal, &mut buffer, at)?);
        Ok(Some((at, done)))
    }

    /// Writes `buffer` to disk, as the growing segment up to `end`.
    fn flush(&mut self, signal: Signal, buffer: &mut Vec<u8>, end: Mark) -> io::Result<Option<Segment>> {
        let Some(growing) = self.growing[signal.index()].as_mut().filter(|_| !buffer.is_empty()) else {
            return Ok(None);
        };
        growing.file.append(buffer)?;
        growing.file.sync()?;
        if !growing.named {
            self.disk.sync()?;
            growing.named = true;
        }
        growing.segment.bytes += buffer.len() as u64;
        growing.segment.end = end;
        buffer.clear();
        Ok(Some(growing.segment))
    }

    fn begin(&mut self, signal: Signal, first: Mark) -> io::Result<()> {
        let mut file = self.disk.create(&segment::name(signal, first))?;
        file.append(&segment::header(signal))?;
        let segment = Segment { first, end: first, bytes: HEADER };
        self.growing[signal.index()] = Some(Growing { segment, file, named: false });
        Ok(())
    }

    /// Makes what was written visible.
    pub(crate) fn publish(spool: &Spool, written: &Written) {
        for signal in Signal::ALL {
            if let Some((until, segments)) = &written[signal.index()] {
                spool.with(signal, |queue| {
                    queue.written_until(*until, segments);
                    notify(queue);
                });
            }
        }
    }

    /// Removes segments that are no longer needed and, beyond the bound, the oldest.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn remove_segments(&mut self, spool: &Spool) -> io::Result<()> {
        for signal in Signal::ALL {
            let index = signal.index();
            let spent = self.growing[index].as_ref().is_some_and(|growing| {
                growing.segment.bytes >= MIN_REMOVED_BYTES
                    && spool.with(signal, |queue| queue.cursor() >= growing.segment.end)
            });
            if spent {
                self.growing[index] = None;
            }
            let growing = self.growing[index].as_ref().map(|growing| growing.segment.first);
            let mut gone = spool.with(signal, |queue| queue.drained(growing));
            let before = gone.len();
            while spool.with(signal, |queue| queue.bytes()) > self.caps[index] {
                let Some(oldest) = spool.with(signal, |queue| queue.drop_oldest(growing)) else {
                    break;
                };
                gone.push(oldest);
            }
            if gone.len() > before {
                let segments = gone.len() - before;
                tracing::warn!(signal = signal.as_str(), segments, "the spool is full; dropping its oldest segments");
            }
            gone.iter().try_for_each(|segment| self.disk.remove(&segment::name(signal, segment.first)))?;
        }
        Ok(())
    }

    /// Writes how far the records are acknowledged, where that changed.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn write_cursors(&mut self, spool: &Spool) -> io::Result<()> {
        let cursors = spool.each(|queue| queue.cursor().min(queue.written()));
        if self.cursors == Some(cursors) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let text = serde_json::to_vec(&cursors).map_err(io::Error::other)?;
        frame::write(&mut bytes, CURSOR_SALT, (0, 0), &text);
        self.disk.replace(CURSOR, &bytes)?;
        self.cursors = Some(cursors);
        Ok(())
    }

    /// The length at which a segment is full: at most a quarter of the bound is dropped at once.
    fn segment_bytes(&self, signal: Signal) -> u64 {
        (self.caps[signal.index()] / 4).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES)
    }
}

/// The file name of the cursors.
pub(crate) const CURSOR: &str = "cursor";
/// The salt of the cursor record.
pub const CURSOR_SALT: u32 = 0x4c51_4301;
/// Longest segment, which is the most that a start reads of each signal, and shortest.
const MAX_SEGMENT_BYTES: u64 = 16 << 20;
const MIN_SEGMENT_BYTES: u64 = 4 << 10;
/// A growing segment of at least this length is removed once all its records are acknowledged.
const MIN_REMOVED_BYTES: u64 = 1 << 20;
