//! The export queue on disk: records that no collector has accepted yet outlive the daemon. A record may be sent once
//! it is kept together with the state that belongs to it. Appending never waits for the disk.
//!
//! ```text
//! append ─► memory ─► (seal) ─► writer: segment files, fdatasync ─► visible ─► peek ─► acknowledge ─► segments removed
//! ```
//!
//! A segment is named by the position of its first record, so a start lists the folder and reads only the newest
//! segment of each signal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::late_found::Shift;
use super::queue::{NextRead, Queue};
use super::segment;
use super::segment::{Mark, Segment};
use crate::otlp::{Backlog, Batch, ExportQueue, Limits, Record, Signal, Wakeup};
use crate::storage::disk::Disk;

/// Positions in the queues of traces, metrics and logs.
pub(super) type Marks = [Mark; 3];

/// Positions in the queues of all targets, by the target's name.
pub(crate) type TargetMarks = BTreeMap<String, Marks>;

/// The queues of one target.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    queues: [Mutex<Queue>; 3],
    /// Called when there is something to write that no tick seals.
    wake: Box<dyn Wake>,
}

/// Is called when there is something to write.
pub(crate) trait Wake: std::fmt::Debug + Send + Sync {
    /// Wakes the writer.
    fn wake(&self);
}

impl Spool {
    pub(crate) fn new(disk: Arc<dyn Disk>, found: [(VecDeque<Segment>, Mark); 3], wake: Box<dyn Wake>) -> Self {
        Self { disk, queues: found.map(|(segments, cursor)| Mutex::new(Queue::resumed(segments, cursor))), wake }
    }

    /// The queues of a folder that cannot be read yet.
    pub(crate) fn unread(disk: Arc<dyn Disk>, wake: Box<dyn Wake>) -> Self {
        Self { disk, queues: std::array::from_fn(|_| Mutex::new(Queue::unread())), wake }
    }

    /// Inserts what was found in a folder that became readable late before what was appended since; returns how far
    /// that shifted the positions.
    pub(crate) fn join(&self, found: [(VecDeque<Segment>, Mark); 3]) -> [Shift; 3] {
        let mut found = found.into_iter();
        self.each(|queue| {
            // One for each signal.
            let (segments, cursor) = found.next().unwrap_or_default();
            let shift = queue.join(segments, cursor);
            notify(queue);
            shift
        })
    }

    /// Runs `work` on the queue of `signal`. A poisoned lock stays in use: no step leaves a queue half changed.
    pub(super) fn with<T>(&self, signal: Signal, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.queues[signal.index()].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `work` on the queue of each signal.
    pub(super) fn each<T>(&self, mut work: impl FnMut(&mut Queue) -> T) -> [T; 3] {
        Signal::ALL.map(|signal| self.with(signal, &mut work))
    }

    /// Allows everything appended so far to be written; returns the positions reached and whether anything waits to be
    /// written.
    pub(crate) fn seal(&self) -> (Marks, bool) {
        let sealed = self.each(|queue| (queue.seal(), queue.has_unwritten()));
        (sealed.map(|(mark, _)| mark), sealed.iter().any(|(_, unwritten)| *unwritten))
    }

    /// The positions up to which records may be written.
    pub(crate) fn sealed(&self) -> Marks {
        self.each(|queue| queue.sealed())
    }

    /// Whether records are sent from memory without being kept, because the disk has failed.
    pub(crate) fn set_memory_only(&self, memory_only: bool) {
        self.each(|queue| {
            queue.memory_only = memory_only;
            notify(queue);
        });
    }

    /// Records of `signal` that were missing in a segment, or damaged.
    #[must_use]
    pub fn damaged(&self, signal: Signal) -> u64 {
        self.with(signal, |queue| queue.damaged)
    }
}

impl ExportQueue for Spool {
    fn append(&self, record: Record) {
        let signal = record.signal;
        let wake_now = self.with(signal, |queue| {
            queue.append(record, MEMORY[signal.index()]);
            // Metrics belong to no state; spans and logs are sealed with the state of their classes.
            (signal == Signal::Metrics).then(|| queue.seal()).is_some()
        });
        if wake_now {
            self.wake.wake();
        }
    }

    fn peek(&self, signal: Signal, limits: Limits) -> Batch {
        loop {
            // Positions are converted under the same lock: a folder that becomes readable late shifts the internal
            // ones.
            let part = match self.with(signal, |queue| queue.next_read(limits)) {
                None => return Batch::default(),
                Some(NextRead::Memory(batch)) => return batch,
                Some(NextRead::Disk(part)) => part,
            };
            let batch = match segment::take(&*self.disk, signal, &part, limits) {
                Ok(taken) => {
                    if taken.damaged > 0 {
                        let (segment, records) = (segment::name(signal, part.segment.first), taken.damaged);
                        tracing::warn!(segment, records, "skipping damaged records of the spool");
                    }
                    self.with(signal, |queue| {
                        let batch = queue.record_read(part.segment.first, taken);
                        queue.to_external(batch)
                    })
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    tracing::warn!(
                        segment = segment::name(signal, part.segment.first),
                        "a segment of the spool is missing"
                    );
                    self.with(signal, |queue| queue.remove_missing(part.segment));
                    continue;
                }
                Err(error) => {
                    tracing::warn!(segment = segment::name(signal, part.segment.first), %error, "cannot read the spool");
                    return Batch::default();
                }
            };
            if !batch.messages.is_empty() {
                return batch;
            }
        }
    }

    fn peek_from(&self, signal: Signal, from: u64, limits: Limits) -> Batch {
        match from {
            0 => self.peek(signal, limits),
            from => self.with(signal, |queue| {
                let batch = queue.peek_fresh(queue.to_internal(from), limits);
                queue.to_external(batch)
            }),
        }
    }

    fn end(&self, signal: Signal) -> Option<u64> {
        Some(self.with(signal, |queue| queue.end()))
    }

    fn acknowledge(&self, signal: Signal, until: u64) {
        self.with(signal, |queue| queue.settle(until));
        self.wake.wake();
    }

    fn backlog(&self, signal: Signal) -> Backlog {
        self.with(signal, |queue| queue.backlog())
    }

    fn dropped(&self, signal: Signal) -> u64 {
        self.with(signal, |queue| queue.dropped)
    }

    fn damaged(&self, signal: Signal) -> u64 {
        Self::damaged(self, signal)
    }

    fn set_wakeup(&self, signal: Signal, wakeup: Arc<Wakeup>) {
        self.with(signal, |queue| queue.wakeup = Some(wakeup));
    }

    fn is_durable(&self) -> bool {
        true
    }
}

/// Wakes the sender of a queue.
pub(super) fn notify(queue: &Queue) {
    if let Some(wakeup) = &queue.wakeup {
        wakeup.notify(false);
    }
}

/// Most bytes of each signal in memory: the newest records, so that fresh ones need not be read, and those that the
/// disk does not accept.
const MEMORY: [usize; 3] = [16 << 20, 8 << 20, 16 << 20];
