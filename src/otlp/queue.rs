//! Where records wait until a collector has them: the seam between making and sending. Decides what is dropped when too
//! much waits (the oldest that is not on its way); refuses to lose anything without counting it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::record::{Record, Signal};
use super::request::field_len;

/// How much one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most spans, log records or data points.
    pub items: u64,
    /// Most bytes of framed messages.
    pub bytes: usize,
}

/// What one request is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Encoded messages, oldest first, at consecutive positions.
    pub messages: Vec<Bytes>,
    /// Spans, log records or data points in them.
    pub items: u64,
    /// The position after the last message, for [`ExportQueue::acknowledge`].
    pub until: u64,
}

/// What waits of one signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages.
    pub records: u64,
    /// Spans, log records or data points in them.
    pub items: u64,
    /// Bytes of the messages.
    pub bytes: u64,
}

/// A queue a signal, written by one side and read by one sender. An implementation keeps order within a signal, gives
/// the same batch again until it is acknowledged, and counts what it drops.
pub trait ExportQueue: std::fmt::Debug + Send + Sync + 'static {
    /// Takes `record` in, dropping the oldest where there is no room.
    fn append(&self, record: Record);

    /// The oldest records of `signal` within `limits`, at least one where any waits. They stay until acknowledged.
    fn peek(&self, signal: Signal, limits: Limits) -> Batch;

    /// As [`ExportQueue::peek`], of the records at position `from` and later: how fresh records overtake a backlog. It
    /// may give none where they are not at hand; then they go with the rest. Asked only of an outbox that tells its
    /// [`end`](Outbox::end); without that, records go in their order.
    fn peek_from(&self, signal: Signal, _from: u64, limits: Limits) -> Batch {
        self.peek(signal, limits)
    }

    /// The position that the next record of `signal` will have. Positions are given one after the other.
    fn end(&self, _signal: Signal) -> Option<u64> {
        None
    }

    /// Forgets all records of `signal` before position `until`: they were delivered, or will never be.
    fn acknowledge(&self, signal: Signal, until: u64);

    /// What waits of `signal`.
    fn backlog(&self, signal: Signal) -> Backlog;

    /// Spans, log records or data points of `signal` dropped so far.
    fn dropped(&self, signal: Signal) -> u64;

    /// Records of `signal` that were kept and found damaged.
    fn damaged(&self, _signal: Signal) -> u64 {
        0
    }

    /// Rings `bell` whenever records of `signal` can be seen that could not before, where that is not at once.
    fn hang(&self, _signal: Signal, _bell: Arc<Wakeup>) {}

    /// Whether what waits outlives the process.
    fn keeps(&self) -> bool {
        false
    }
}

/// How a sender learns that records came.
#[derive(Debug, Default)]
pub struct Wakeup {
    came: Notify,
    urgent: AtomicBool,
}

impl Wakeup {
    /// Records can be seen; `urgent` where one of them is.
    pub fn ring(&self, urgent: bool) {
        if urgent {
            self.set_urgent();
        }
        self.came.notify_one();
    }

    /// Returns when it was rung since.
    pub(super) async fn rung(&self) {
        self.came.notified().await;
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Acquire)
    }

    pub(super) fn set_urgent(&self) {
        self.urgent.store(true, Ordering::Release);
    }

    pub(super) fn take_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::AcqRel)
    }
}

/// The bounds of one signal's queue in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Most messages.
    pub records: usize,
    /// Most bytes of messages.
    pub bytes: usize,
}

/// An [`ExportQueue`] in memory: lost with the process, bounded in bytes and records.
#[derive(Debug)]
pub struct MemoryQueue {
    queues: [Mutex<Queue>; 3],
    rooms: [Room; 3],
}

impl MemoryQueue {
    /// An empty outbox with the same `room` for each signal.
    #[must_use]
    pub fn with_room(room: Room) -> Self {
        Self { queues: Default::default(), rooms: [room; 3] }
    }

    /// `work` on the queue of `signal`. A poisoned lock is used as it is: no step below leaves a queue half changed.
    fn with<T>(&self, signal: Signal, work: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queues[signal.index()].lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut queue)
    }
}

impl Default for MemoryQueue {
    /// 64 MiB in all: traces [`TRACES_BYTES`], metrics [`METRICS_BYTES`], logs [`LOGS_BYTES`].
    fn default() -> Self {
        let room = |bytes| Room { records: MAX_RECORDS, bytes };
        Self { queues: Default::default(), rooms: [room(TRACES_BYTES), room(METRICS_BYTES), room(LOGS_BYTES)] }
    }
}

impl ExportQueue for MemoryQueue {
    fn append(&self, record: Record) {
        let room = self.rooms[record.signal.index()];
        self.with(record.signal, |queue| queue.append(record, room));
    }

    fn peek(&self, signal: Signal, limits: Limits) -> Batch {
        self.peek_from(signal, 0, limits)
    }

    fn peek_from(&self, signal: Signal, from: u64, limits: Limits) -> Batch {
        self.with(signal, |queue| queue.peek(from, limits))
    }

    fn end(&self, signal: Signal) -> Option<u64> {
        Some(self.with(signal, |queue| queue.next))
    }

    fn acknowledge(&self, signal: Signal, until: u64) {
        self.with(signal, |queue| queue.acknowledge(until));
    }

    fn backlog(&self, signal: Signal) -> Backlog {
        self.with(signal, |queue| queue.backlog)
    }

    fn dropped(&self, signal: Signal) -> u64 {
        self.with(signal, |queue| queue.dropped)
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    backlog: Backlog,
    /// The position of the next record.
    pub(crate) next: u64,
    /// Positions that were peeked last and are not acknowledged: dropping them would count them twice.
    on_the_way: Range<u64>,
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    position: u64,
    items: u32,
    bytes: Bytes,
}

impl Queue {
    fn append(&mut self, record: Record, room: Room) {
        let len = record.bytes.len();
        while self.waiting.len() >= room.records || self.backlog.bytes as usize + len > room.bytes {
            if !self.drop_oldest() {
                self.dropped += u64::from(record.items);
                return;
            }
        }
        self.backlog.records += 1;
        self.backlog.items += u64::from(record.items);
        self.backlog.bytes += len as u64;
        self.waiting.push_back(Waiting { position: self.next, items: record.items, bytes: record.bytes });
        self.next += 1;
    }

    fn drop_oldest(&mut self) -> bool {
        let at = self.waiting.iter().position(|waiting| !self.on_the_way.contains(&waiting.position));
        let oldest = at.and_then(|at| self.waiting.remove(at));
        if let Some(oldest) = &oldest {
            self.dropped += u64::from(oldest.items);
            self.forget(oldest);
        }
        oldest.is_some()
    }

    fn peek(&mut self, from: u64, limits: Limits) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        let first = self.waiting.partition_point(|waiting| waiting.position < from);
        for waiting in self.waiting.range(first..) {
            let items = u64::from(waiting.items);
            bytes += field_len(waiting.bytes.len());
            let full = batch.items + items > limits.items || bytes > limits.bytes;
            if (full || waiting.position != batch.until) && !batch.messages.is_empty() {
                break;
            }
            batch.messages.push(waiting.bytes.clone());
            batch.items += items;
            batch.until = waiting.position + 1;
        }
        self.on_the_way = batch.until - batch.messages.len() as u64..batch.until;
        batch
    }

    fn acknowledge(&mut self, until: u64) {
        while let Some(first) = self.waiting.pop_front_if(|first| first.position < until) {
            self.forget(&first);
        }
        self.on_the_way = 0..0;
    }

    fn forget(&mut self, gone: &Waiting) {
        self.backlog.records -= 1;
        self.backlog.items -= u64::from(gone.items);
        self.backlog.bytes -= gone.bytes.len() as u64;
    }
}

/// Most bytes of spans that wait in memory: about 30,000 segments of a minute.
pub(super) const TRACES_BYTES: usize = 32 << 20;
/// Most bytes of metrics that wait in memory.
pub(super) const METRICS_BYTES: usize = 8 << 20;
/// Most bytes of log events that wait in memory.
pub(super) const LOGS_BYTES: usize = 24 << 20;
/// Most records of a signal that wait in memory, so that tiny ones cannot cost more in bookkeeping than in bytes.
pub(super) const MAX_RECORDS: usize = 262_144;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Limits = Limits { items: u64::MAX, bytes: usize::MAX };

    fn record(byte: u8, len: usize) -> Record {
        Record { signal: Signal::Traces, bytes: vec![byte; len].into(), items: 1, urgent: false }
    }

    fn firsts(batch: &Batch) -> Vec<u8> {
        batch.messages.iter().map(|message| message[0]).collect()
    }

    #[test]
    fn the_oldest_that_is_not_on_its_way_is_dropped_and_counted() {
        let outbox = MemoryQueue::with_room(Room { records: 3, bytes: 1_000 });
        (1..=4).for_each(|byte| outbox.append(record(byte, 1)));
        assert_eq!(firsts(&outbox.peek(Signal::Traces, ALL)), [2, 3, 4]);
        let on_the_way = outbox.peek(Signal::Traces, Limits { items: 1, ..ALL });
        outbox.append(record(5, 1));
        assert_eq!(outbox.dropped(Signal::Traces), 2);
        outbox.acknowledge(Signal::Traces, on_the_way.until);
        assert_eq!(firsts(&outbox.peek(Signal::Traces, ALL)), [4, 5]);
        outbox.append(record(6, 2_000));
        assert_eq!(outbox.dropped(Signal::Traces), 3, "what never fits is dropped itself");
        assert_eq!(firsts(&outbox.peek(Signal::Traces, ALL)), [4, 5]);
        assert_eq!(outbox.dropped(Signal::Logs), 0, "signals do not share a queue");
    }

    #[test]
    fn limits_hold_but_one_record_always_goes() {
        let outbox = MemoryQueue::default();
        (1..=3).for_each(|byte| outbox.append(record(byte, 100)));
        let two = Limits { items: 9, bytes: 204 };
        assert_eq!(firsts(&outbox.peek(Signal::Traces, two)), [1, 2], "102 bytes each when framed");
        let none = Limits { items: 0, bytes: 0 };
        assert_eq!(firsts(&outbox.peek(Signal::Traces, none)), [1]);
    }

    proptest! {
        /// Steps: 0 peek, 1 acknowledge what was peeked, else append that many bytes.
        #[test]
        fn nothing_is_lost_uncounted(steps in prop::collection::vec(0_usize..40, 0..200)) {
            let outbox = MemoryQueue::with_room(Room { records: 8, bytes: 120 });
            let (mut appended, mut acknowledged, mut peeked) = (0, 0, None);
            for step in steps {
                match step {
                    0 => peeked = Some(outbox.peek(Signal::Traces, Limits { items: 3, bytes: 64 })),
                    1 => if let Some(batch) = peeked.take() {
                        acknowledged += batch.items;
                        outbox.acknowledge(Signal::Traces, batch.until);
                    },
                    len => {
                        outbox.append(record(0, len));
                        appended += 1;
                    }
                }
                let left = outbox.backlog(Signal::Traces);
                prop_assert!(left.records <= 8 && left.bytes <= 120);
                prop_assert_eq!(appended, acknowledged + left.items + outbox.dropped(Signal::Traces));
            }
        }
    }
}
