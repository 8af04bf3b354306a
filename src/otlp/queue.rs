//! Queues of records that no collector has accepted yet: the interface between encoding and sending, and the one in
//! memory. A full queue drops its oldest record that is not in flight, and counts it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::record::{Record, Signal};
use super::request::field_len;

/// The bounds of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most spans, log records or data points.
    pub items: u64,
    /// Most bytes of messages, including their field headers ([`field_len`]).
    pub bytes: usize,
}

/// The records of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Encoded messages, oldest first, at consecutive positions.
    pub messages: Vec<Bytes>,
    /// Spans, log records or data points in them.
    pub items: u64,
    /// The position after the last message, for [`ExportQueue::acknowledge`].
    pub until: u64,
}

/// What is queued of one signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Records.
    pub records: u64,
    /// Spans, log records or data points in them.
    pub items: u64,
    /// Bytes of the records.
    pub bytes: u64,
}

/// One queue for each signal, each read by one sender. An implementation keeps the order within a signal, returns the
/// same batch until it is acknowledged, and counts what it drops.
pub trait ExportQueue: std::fmt::Debug + Send + Sync + 'static {
    /// Appends `record`; drops the oldest where there is no room.
    fn append(&self, record: Record);

    /// The oldest records of `signal` within `limits`, at least one unless the queue is empty. They stay queued until
    /// acknowledged.
    fn peek(&self, signal: Signal, limits: Limits) -> Batch;

    /// As [`ExportQueue::peek`], from position `from` on, so that fresh records can overtake a backlog. May return none
    /// where those records are not at hand; they are sent with the backlog then. Called only where
    /// [`end`](ExportQueue::end) is known; without it, records are sent in order.
    fn peek_from(&self, signal: Signal, _from: u64, limits: Limits) -> Batch {
        self.peek(signal, limits)
    }

    /// The position of the next record of `signal`, where the queue knows it. Positions are consecutive.
    fn end(&self, _signal: Signal) -> Option<u64> {
        None
    }

    /// Removes all records of `signal` before position `until`: they were delivered, or never will be.
    fn acknowledge(&self, signal: Signal, until: u64);

    /// What is queued of `signal`.
    fn backlog(&self, signal: Signal) -> Backlog;

    /// Spans, log records or data points of `signal` dropped so far.
    fn dropped(&self, signal: Signal) -> u64;

    /// Records of `signal` that were read back damaged.
    fn damaged(&self, _signal: Signal) -> u64 {
        0
    }

    /// Sets the wake-up to notify when records of `signal` become visible later than they were appended.
    fn set_wakeup(&self, _signal: Signal, _bell: Arc<Wakeup>) {}

    /// Whether queued records outlive the process.
    fn is_durable(&self) -> bool {
        false
    }
}

/// Wakes the sender of one signal.
#[derive(Debug, Default)]
pub struct Wakeup {
    notify: Notify,
    urgent: AtomicBool,
}

impl Wakeup {
    /// Records are visible; `urgent` where one of them is urgent.
    pub fn notify(&self, urgent: bool) {
        if urgent {
            self.set_urgent();
        }
        self.notify.notify_one();
    }

    /// Waits for a call of [`notify`](Self::notify) since the last return.
    pub(super) async fn notified(&self) {
        self.notify.notified().await;
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
    /// Most records.
    pub records: usize,
    /// Most bytes of records.
    pub bytes: usize,
}

/// An [`ExportQueue`] in memory, lost with the process.
#[derive(Debug)]
pub struct MemoryQueue {
    queues: [Mutex<Queue>; 3],
    rooms: [Room; 3],
}

impl MemoryQueue {
    /// An empty queue with the same `room` for each signal.
    #[must_use]
    pub fn with_room(room: Room) -> Self {
        Self { queues: Default::default(), rooms: [room; 3] }
    }

    /// Runs `work` on the queue of `signal`. A poisoned lock stays in use: no step leaves a queue half changed.
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
    entries: VecDeque<Entry>,
    backlog: Backlog,
    /// The position of the next record.
    next: u64,
    /// Positions returned by the last peek and not acknowledged: dropping them would count them twice.
    in_flight: Range<u64>,
    dropped: u64,
}

#[derive(Debug)]
struct Entry {
    position: u64,
    items: u32,
    bytes: Bytes,
}

impl Queue {
    fn append(&mut self, record: Record, room: Room) {
        let len = record.bytes.len();
        while self.entries.len() >= room.records || self.backlog.bytes as usize + len > room.bytes {
            if !self.drop_oldest() {
                self.dropped += u64::from(record.items);
                return;
            }
        }
        self.backlog.records += 1;
        self.backlog.items += u64::from(record.items);
        self.backlog.bytes += len as u64;
        self.entries.push_back(Entry { position: self.next, items: record.items, bytes: record.bytes });
        self.next += 1;
    }

    fn drop_oldest(&mut self) -> bool {
        let at = self.entries.iter().position(|entry| !self.in_flight.contains(&entry.position));
        let oldest = at.and_then(|at| self.entries.remove(at));
        if let Some(oldest) = &oldest {
            self.dropped += u64::from(oldest.items);
            self.remove_from_backlog(oldest);
        }
        oldest.is_some()
    }

    fn peek(&mut self, from: u64, limits: Limits) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        let first = self.entries.partition_point(|entry| entry.position < from);
        for entry in self.entries.range(first..) {
            let items = u64::from(entry.items);
            bytes += field_len(entry.bytes.len());
            let full = batch.items + items > limits.items || bytes > limits.bytes;
            if (full || entry.position != batch.until) && !batch.messages.is_empty() {
                break;
            }
            batch.messages.push(entry.bytes.clone());
            batch.items += items;
            batch.until = entry.position + 1;
        }
        self.in_flight = batch.until - batch.messages.len() as u64..batch.until;
        batch
    }

    fn acknowledge(&mut self, until: u64) {
        while let Some(first) = self.entries.pop_front_if(|first| first.position < until) {
            self.remove_from_backlog(&first);
        }
        self.in_flight = 0..0;
    }

    fn remove_from_backlog(&mut self, entry: &Entry) {
        self.backlog.records -= 1;
        self.backlog.items -= u64::from(entry.items);
        self.backlog.bytes -= entry.bytes.len() as u64;
    }
}

/// Most bytes of spans in memory: about 30,000 one-minute segments.
pub(super) const TRACES_BYTES: usize = 32 << 20;
/// Most bytes of metrics in memory.
pub(super) const METRICS_BYTES: usize = 8 << 20;
/// Most bytes of log events in memory.
pub(super) const LOGS_BYTES: usize = 24 << 20;
/// Most records of a signal in memory, which bounds the bookkeeping of tiny ones.
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
    fn the_oldest_not_in_flight_is_dropped_and_counted() {
        let queue = MemoryQueue::with_room(Room { records: 3, bytes: 1_000 });
        (1..=4).for_each(|byte| queue.append(record(byte, 1)));
        assert_eq!(firsts(&queue.peek(Signal::Traces, ALL)), [2, 3, 4]);
        let in_flight = queue.peek(Signal::Traces, Limits { items: 1, ..ALL });
        queue.append(record(5, 1));
        assert_eq!(queue.dropped(Signal::Traces), 2);
        queue.acknowledge(Signal::Traces, in_flight.until);
        assert_eq!(firsts(&queue.peek(Signal::Traces, ALL)), [4, 5]);
        queue.append(record(6, 2_000));
        assert_eq!(queue.dropped(Signal::Traces), 3, "a record larger than the queue is dropped itself");
        assert_eq!(firsts(&queue.peek(Signal::Traces, ALL)), [4, 5]);
        assert_eq!(queue.dropped(Signal::Logs), 0, "signals do not share a queue");
    }

    #[test]
    fn limits_hold_but_one_record_is_always_returned() {
        let queue = MemoryQueue::default();
        (1..=3).for_each(|byte| queue.append(record(byte, 100)));
        let two = Limits { items: 9, bytes: 204 };
        assert_eq!(firsts(&queue.peek(Signal::Traces, two)), [1, 2], "102 bytes each with their field headers");
        let none = Limits { items: 0, bytes: 0 };
        assert_eq!(firsts(&queue.peek(Signal::Traces, none)), [1]);
    }

    proptest! {
        /// Steps: 0 peeks, 1 acknowledges the peeked batch, others append that many bytes.
        #[test]
        fn every_lost_record_is_counted(steps in prop::collection::vec(0_usize..40, 0..200)) {
            let queue = MemoryQueue::with_room(Room { records: 8, bytes: 120 });
            let (mut appended, mut acknowledged, mut peeked) = (0, 0, None);
            for step in steps {
                match step {
                    0 => peeked = Some(queue.peek(Signal::Traces, Limits { items: 3, bytes: 64 })),
                    1 => if let Some(batch) = peeked.take() {
                        acknowledged += batch.items;
                        queue.acknowledge(Signal::Traces, batch.until);
                    },
                    len => {
                        queue.append(record(0, len));
                        appended += 1;
                    }
                }
                let left = queue.backlog(Signal::Traces);
                prop_assert!(left.records <= 8 && left.bytes <= 120);
                prop_assert_eq!(appended, acknowledged + left.items + queue.dropped(Signal::Traces));
            }
        }
    }
}
