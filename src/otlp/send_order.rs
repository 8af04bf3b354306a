//! The order of one signal's records when more are queued than a few requests hold: the newest first, then the backlog
//! from its oldest. Remembers which positions were delivered out of order, at most [`MAX_RANGES`] ranges of them.
//!
//! ```text
//! position   front ─────────────► fresh ─────────► end
//!            backlog, oldest first │ newest records, in their order
//! ```

use std::ops::Range;

use super::queue::{Backlog, Batch, Limits};

/// One of the two parts of a queue, which are sent in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// The newest records; all records where few are queued.
    Fresh,
    /// The records before the fresh ones.
    Backlog,
}

/// How far each lane of one signal has been sent.
#[derive(Clone, Debug, Default)]
pub(super) struct SendOrder {
    /// The next position of the fresh lane, while there is a backlog.
    fresh: Option<u64>,
    /// Positions delivered out of order, after the backlog: ascending, not adjacent.
    delivered: Vec<Range<u64>>,
}

impl SendOrder {
    /// Decides whether fresh records overtake a backlog: `end` is the position after the newest record, `limits` the
    /// size of a request.
    pub(super) fn update(&mut self, backlog: Backlog, end: u64, limits: Limits) {
        let long = match self.fresh {
            None => {
                backlog.items > BACKLOG_REQUESTS.saturating_mul(limits.items)
                    || backlog.bytes > BACKLOG_REQUESTS.saturating_mul(limits.bytes as u64)
            }
            Some(fresh) => end - fresh.min(end) > limits.items && self.delivered.len() < MAX_RANGES,
        };
        let newest = end.saturating_sub(limits.items / 2);
        if long && self.fresh.is_none_or(|fresh| fresh < newest) {
            self.fresh = Some(newest);
        }
    }

    /// Whether there is a backlog before the fresh records.
    pub(super) const fn is_split(&self) -> bool {
        self.fresh.is_some()
    }

    /// How many records before `end` are fresh; `None` where all are.
    pub(super) fn fresh_count(&self, end: u64) -> Option<u64> {
        self.fresh.map(|fresh| end.saturating_sub(fresh))
    }

    /// The next batch of `lane`, read by `peek` from a position on. It may be empty where the queue dropped the
    /// records.
    pub(super) fn next(&self, lane: Lane, limits: Limits, peek: impl Fn(u64, Limits) -> Batch) -> Batch {
        let (from, ceiling) = match (lane, self.fresh) {
            (Lane::Fresh, fresh) => return peek(fresh.unwrap_or(0), limits),
            (Lane::Backlog, None) => return Batch::default(),
            (Lane::Backlog, Some(fresh)) => (0, self.delivered.first().map_or(fresh, |range| range.start)),
        };
        let mut batch = peek(from, limits);
        if batch == Batch::default() {
            return batch;
        }
        while batch.until > ceiling && batch.messages.len() > 1 {
            // Each record has at least one item, so as many items as positions before the ceiling do not exceed it,
            // except where records in between are damaged.
            let (before, most) = (ceiling.saturating_sub(first(&batch)), batch.messages.len() as u64 - 1);
            let items = if before == 0 { most / 2 } else { before.min(most) };
            batch = peek(from, Limits { items: items.max(1), ..limits });
        }
        if batch.messages.is_empty() || batch.until > ceiling {
            return Batch { until: ceiling, ..Batch::default() };
        }
        batch
    }

    /// Records that `batch` of `lane` is settled; returns the position before which no record is needed any more.
    pub(super) fn settled(&mut self, lane: Lane, batch: &Batch) -> u64 {
        let Some(fresh) = self.fresh else {
            return batch.until;
        };
        if lane == Lane::Fresh {
            self.fresh = Some(batch.until.max(fresh));
            self.deliver(first(batch)..batch.until);
            return 0;
        }
        let mut front = batch.until;
        while self.delivered.first().is_some_and(|range| range.start <= front) {
            front = front.max(self.delivered.remove(0).end);
        }
        if self.fresh.is_some_and(|fresh| front >= fresh) {
            *self = Self::default();
        }
        front
    }

    /// The queue cannot return the fresh records before `end` now: they are sent with the backlog.
    pub(super) fn skip(&mut self, end: u64) {
        self.fresh = self.fresh.map(|fresh| fresh.max(end));
    }

    fn deliver(&mut self, range: Range<u64>) {
        match self.delivered.last_mut() {
            Some(last) if last.end >= range.start => last.end = range.end.max(last.end),
            _ if range.is_empty() => {}
            _ => self.delivered.push(range),
        }
    }
}

/// The position of the first record of a batch.
fn first(batch: &Batch) -> u64 {
    batch.until.saturating_sub(batch.messages.len() as u64)
}

/// Queued requests beyond which the newest records overtake the rest; fewer are sent soon enough anyway.
const BACKLOG_REQUESTS: u64 = 4;
/// Most ranges delivered out of order; beyond them fresh records are sent in order.
const MAX_RANGES: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::otlp::queue::{ExportQueue as _, MemoryQueue, Room};
    use crate::otlp::record::{Record, Signal};

    const LIMITS: Limits = Limits { items: 4, bytes: usize::MAX };
    const TRACES: Signal = Signal::Traces;

    fn append(queue: &MemoryQueue, number: u64) {
        let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
        queue.append(Record { signal: TRACES, bytes, items: 1, urgent: false });
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.messages.iter().map(|bytes| u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"))).collect()
    }

    fn update(order: &mut SendOrder, queue: &MemoryQueue) {
        order.update(queue.backlog(TRACES), queue.end(TRACES).expect("an end"), LIMITS);
    }

    fn take(order: &mut SendOrder, lane: Lane, queue: &MemoryQueue) -> Vec<u64> {
        let batch = order.next(lane, LIMITS, |from, limits| queue.peek_from(TRACES, from, limits));
        queue.acknowledge(TRACES, order.settled(lane, &batch));
        numbers(&batch)
    }

    #[test]
    fn the_newest_are_sent_first_then_the_rest_in_order() {
        let (mut order, queue) = (SendOrder::default(), MemoryQueue::default());
        (0..16).for_each(|number| append(&queue, number));
        update(&mut order, &queue);
        assert!(!order.is_split(), "four requests are no backlog");
        append(&queue, 16);
        update(&mut order, &queue);
        assert_eq!(take(&mut order, Lane::Fresh, &queue), [15, 16]);
        assert_eq!(take(&mut order, Lane::Backlog, &queue), [0, 1, 2, 3]);
        append(&queue, 17);
        assert_eq!(take(&mut order, Lane::Fresh, &queue), [17]);
        for expected in [&[4, 5, 6, 7][..], &[8, 9, 10, 11], &[12, 13, 14]] {
            assert_eq!(take(&mut order, Lane::Backlog, &queue), expected);
        }
        assert!(!order.is_split());
        assert_eq!(queue.backlog(TRACES), Backlog::default());
    }

    #[test]
    fn fresh_records_that_cannot_be_read_are_sent_with_the_backlog() {
        let (mut order, queue) = (SendOrder::default(), MemoryQueue::default());
        (0..20).for_each(|number| append(&queue, number));
        update(&mut order, &queue);
        let none = order.next(Lane::Fresh, LIMITS, |_, _| Batch::default());
        assert_eq!(none, Batch::default());
        order.skip(20);
        assert_eq!(order.fresh_count(20), Some(0));
        append(&queue, 20);
        assert_eq!(take(&mut order, Lane::Fresh, &queue), [20]);
        let rest: Vec<_> = (0..5).flat_map(|_| take(&mut order, Lane::Backlog, &queue)).collect();
        assert_eq!(rest, (0..20).collect::<Vec<_>>());
        assert!(!order.is_split());
    }

    proptest! {
        /// Steps: 0 and 1 send from a lane, 2 and 3 fail to, others append that many records.
        #[test]
        fn each_record_is_sent_once_and_fresh_ones_soon(
            steps in prop::collection::vec(0_u64..12, 0..300), room in 20_usize..200,
        ) {
            let queue = MemoryQueue::with_room(Room { records: room, bytes: usize::MAX });
            let (mut order, mut next, mut sent) = (SendOrder::default(), 0, BTreeMap::new());
            for step in steps {
                update(&mut order, &queue);
                let lane = if step % 2 == 0 { Lane::Fresh } else { Lane::Backlog };
                let end = queue.end(TRACES).expect("an end");
                prop_assert!(order.delivered.len() <= MAX_RANGES);
                match step {
                    0 | 1 => {
                        let expected = lane == Lane::Fresh && order.fresh_count(end).is_none_or(|count| count > 0);
                        let taken = take(&mut order, lane, &queue);
                        if expected && let Some(last) = taken.last() {
                            let bounded = order.delivered.len() == MAX_RANGES;
                            prop_assert!(!order.is_split() || bounded || end - last <= 8, "fresh is {} behind", end - last);
                        }
                        for number in taken {
                            *sent.entry(number).or_insert(0) += 1;
                        }
                    }
                    2 | 3 => drop(order.next(lane, LIMITS, |from, limits| queue.peek_from(TRACES, from, limits))),
                    count => for _ in 0..count { append(&queue, next); next += 1; },
                }
            }
            for _ in 0..next {
                update(&mut order, &queue);
                for lane in [Lane::Fresh, Lane::Backlog] {
                    let taken = take(&mut order, lane, &queue);
                    for number in taken {
                        *sent.entry(number).or_insert(0) += 1;
                    }
                }
            }
            prop_assert_eq!(queue.backlog(TRACES), Backlog::default());
            prop_assert!(sent.values().all(|times| *times == 1), "{:?}", sent);
            // A record delivered out of order and then dropped counts as both; none counts as neither.
            prop_assert!(sent.len() as u64 + queue.dropped(TRACES) >= next);
        }
    }
}
