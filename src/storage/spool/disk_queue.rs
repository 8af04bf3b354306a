//! The outbox on disk: what no collector has taken yet outlives the daemon. Decides when a record may be sent (once it
//! is kept, together with whatever else must be kept with it) and which whole segments go when there are too many;
//! refuses to make whoever tells wait.
//!
//! ```text
//! append ─► memory ─► (seal) ─► keeper: segment files, fdatasync ─► visible ─► peek ─► acknowledge ─► segments removed
//! ```
//!
//! A segment is named by the place of its first record, so a start lists the folder, reads the newest segment of each
//! signal, and no more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::late_found::Move;
use super::queue::{Look, Queue};
use super::segment;
use super::segment::{Mark, Segment};
use crate::otlp::{Backlog, Batch, ExportQueue, Limits, Record, Signal, Wakeup};
use crate::storage::disk::Disk;

/// Places in the queues of traces, metrics and logs.
pub(super) type Marks = [Mark; 3];

/// Places in the queues of all targets, by the target's name.
pub(crate) type Places = BTreeMap<String, Marks>;

/// The queues.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    queues: [Mutex<Queue>; 3],
    /// Called when something wants writing that nobody seals.
    wake: Box<dyn Wake>,
}

/// Told that there is something to write.
pub(crate) trait Wake: std::fmt::Debug + Send + Sync {
    /// There is.
    fn wake(&self);
}

impl Spool {
    pub(crate) fn new(disk: Arc<dyn Disk>, found: [(VecDeque<Segment>, Mark); 3], wake: Box<dyn Wake>) -> Self {
        Self { disk, queues: found.map(|(segments, cursor)| Mutex::new(Queue::resumed(segments, cursor))), wake }
    }

    /// Of a folder that cannot be read yet.
    pub(crate) fn unread(disk: Arc<dyn Disk>, wake: Box<dyn Wake>) -> Self {
        Self { disk, queues: std::array::from_fn(|_| Mutex::new(Queue::unread())), wake }
    }

    /// Puts what was found in the folder at last before what came since; gives how far that moved.
    pub(crate) fn join(&self, found: [(VecDeque<Segment>, Mark); 3]) -> [Move; 3] {
        let mut found = found.into_iter();
        self.each(|queue| {
            // As many as there are signals.
            let (segments, cursor) = found.next().unwrap_or_default();
            let moves = queue.join(segments, cursor);
            ring(queue);
            moves
        })
    }

    /// `work` on the queue of `signal`. A poisoned lock is used as it is: no step leaves a queue half changed.
    pub(super) fn with<T>(&self, signal: Signal, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.queues[signal.index()].lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn each<T>(&self, mut work: impl FnMut(&mut Queue) -> T) -> [T; 3] {
        Signal::ALL.map(|signal| self.with(signal, &mut work))
    }

    /// All that came may be written; gives the places reached and whether anything waits for it.
    pub(crate) fn seal(&self) -> (Marks, bool) {
        let sealed = self.each(|queue| (queue.seal(), queue.wants_writing()));
        (sealed.map(|(mark, _)| mark), sealed.iter().any(|(_, wants)| *wants))
    }

    /// What may be written now.
    pub(crate) fn sealed(&self) -> Marks {
        self.each(|queue| queue.sealed())
    }

    /// The disk is in trouble: what is in memory is sent without being kept, until it is over.
    pub(crate) fn float(&self, afloat: bool) {
        self.each(|queue| {
            queue.afloat = afloat;
            ring(queue);
        });
    }

    /// Records that should have been in a segment and were not, or not whole, by signal.
    #[must_use]
    pub fn damaged(&self, signal: Signal) -> u64 {
        self.with(signal, |queue| queue.damaged)
    }
}

impl ExportQueue for Spool {
    fn append(&self, record: Record) {
        let signal = record.signal;
        let lonely = self.with(signal, |queue| {
            queue.append(record, MEMORY[signal.index()]);
            // No state hangs on metrics; what is told of classes is sealed with the state it was told of.
            (signal == Signal::Metrics).then(|| queue.seal()).is_some()
        });
        if lonely {
            self.wake.wake();
        }
    }

    fn peek(&self, signal: Signal, limits: Limits) -> Batch {
        loop {
            // What is given out is told by the places of outside at once: a folder that is found late moves those of
            // inside.
            let part = match self.with(signal, |queue| queue.look(limits)) {
                None => return Batch::default(),
                Some(Look::Memory(batch)) => return batch,
                Some(Look::Disk(part)) => part,
            };
            let batch = match segment::take(&*self.disk, signal, &part, limits) {
                Ok(taken) => {
                    if taken.damaged > 0 {
                        let (segment, records) = (segment::name(signal, part.segment.first), taken.damaged);
                        tracing::warn!(segment, records, "the spool is damaged here; these records are skipped");
                    }
                    self.with(signal, |queue| {
                        let batch = queue.given(part.segment.first, taken);
                        queue.outside(batch)
                    })
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    tracing::warn!(
                        segment = segment::name(signal, part.segment.first),
                        "a segment of the spool is gone"
                    );
                    self.with(signal, |queue| queue.missing(part.segment));
                    continue;
                }
                Err(error) => {
                    tracing::warn!(segment = segment::name(signal, part.segment.first), %error, "reading the spool");
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
                let batch = queue.ahead_of_rest(queue.inside(from), limits);
                queue.outside(batch)
            }),
        }
    }

    fn end(&self, signal: Signal) -> Option<u64> {
        Some(self.with(signal, |queue| queue.end()))
    }

    fn acknowledge(&self, signal: Signal, until: u64) {
        self.with(signal, |queue| queue.settled(until));
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

pub(super) fn ring(queue: &Queue) {
    if let Some(wakeup) = &queue.wakeup {
        wakeup.notify(false);
    }
}

/// Most bytes of each signal in memory: what is newest, so that fresh records need no reading, and what the disk does
/// not take.
const MEMORY: [usize; 3] = [16 << 20, 8 << 20, 16 << 20];
