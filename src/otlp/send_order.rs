//! Which of a signal's records go next when more waits than a few requests hold: the newest, then the backlog from its
//! oldest on. Decides what is fresh and what of it was delivered out of order; refuses to keep more than a few such
//! stretches in mind.
//!
//! ```text
//! position   front ─────────────► fresh ─────────► end
//!            backlog, oldest first │ newest records, in their order
//! ```

use std::ops::Range;

use super::queue::{Backlog, Batch, Limits};

/// One of the two ways out of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// The newest records; all of them where little waits.
    Fresh,
    /// What waits before the fresh ones.
    Backlog,
}

/// How far each lane of one signal is.
#[derive(Clone, Debug, Default)]
pub(super) struct SendOrder {
    /// The next position of the fresh lane, while a backlog waits before it.
    fresh: Option<u64>,
    /// Delivered positions behind the backlog: ascending, none touching another.
    delivered: Vec<Range<u64>>,
}

impl SendOrder {
    /// Looks at what waits: `end` is the position after the newest record. A request holds `limits`.
    pub(super) fn look(&mut self, backlog: Backlog, end: u64, limits: Limits) {
        let long = match self.fresh {
            None => {
                backlog.items > SPLIT.saturating_mul(limits.items)
                    || backlog.bytes > SPLIT.saturating_mul(limits.bytes as u64)
            }
            Some(fresh) => end - fresh.min(end) > limits.items && self.delivered.len() < MAX_STRETCHES,
        };
        let newest = end.saturating_sub(limits.items / 2);
        if long && self.fresh.is_none_or(|fresh| fresh < newest) {
            self.fresh = Some(newest);
        }
    }

    /// Whether a backlog waits before the fresh records.
    pub(super) const fn split(&self) -> bool {
        self.fresh.is_some()
    }

    /// How many fresh records there are before `end`; `None` where all are.
    pub(super) fn fresh(&self, end: u64) -> Option<u64> {
        self.fresh.map(|fresh| end.saturating_sub(fresh))
    }

    /// The next batch of `lane`, read by `peek` from a position on. It may be empty where the outbox dropped what was
    /// to go.
    pub(super) fn next(&self, lane: Lane, limits: Limits, peek: impl Fn(u64, Limits) -> Batch) -> Batch {
        let (from, ceiling) = match (lane, self.fresh) {
            (Lane::Fresh, fresh) => return peek(fresh.unwrap_or(0), limits),
            (Lane::Backlog, None) => return Batch::default(),
            (Lane::Backlog, Some(fresh)) => (0, self.delivered.first().map_or(fresh, |stretch| stretch.start)),
        };
        let mut batch = peek(from, limits);
        if batch == Batch::default() {
            return batch;
        }
        while batch.until > ceiling && batch.messages.len() > 1 {
            // Each record is an item at least, so as many items as there are positions before the ceiling do not pass
            // it, save where records between are damaged.
            let (before, most) = (ceiling.saturating_sub(first(&batch)), batch.messages.len() as u64 - 1);
            let items = if before == 0 { most / 2 } else { before.min(most) };
            batch = peek(from, Limits { items: items.max(1), ..limits });
        }
        if batch.messages.is_empty() || batch.until > ceiling {
            return Batch { until: ceiling, ..Batch::default() };
        }
        batch
    }

    /// Notes that `batch` of `lane` is settled; gives the position before which nothing is needed any more.
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
        while self.delivered.first().is_some_and(|stretch| stretch.start <= front) {
            front = front.max(self.delivered.remove(0).end);
        }
        if self.fresh.is_some_and(|fresh| front >= fresh) {
            *self = Self::default();
        }
        front
    }

    /// The outbox cannot give the fresh records before `end` now: they go with the backlog.
    pub(super) fn pass(&mut self, end: u64) {
        self.fresh = self.fresh.map(|fresh| fresh.max(end));
    }

    fn deliver(&mut self, stretch: Range<u64>) {
        match self.delivered.last_mut() {
            Some(last) if last.end >= stretch.start => last.end = stretch.end.max(last.end),
            _ if stretch.is_empty() => {}
            _ => self.delivered.push(stretch),
        }
    }
}

/// The position of a batch's first record.
fn first(batch: &Batch) -> u64 {
    batch.until.saturating_sub(batch.messages.len() as u64)
}

/// Requests that may wait before the newest records overtake the rest: fewer are gone sooner than anyone notices.
const SPLIT: u64 = 4;
/// Most stretches delivered out of order; beyond them fresh records go in their order.
const MAX_STRETCHES: usize = 64;

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

    fn append(outbox: &MemoryQueue, number: u64) {
        let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
        outbox.append(Record { signal: TRACES, bytes, items: 1, urgent: false });
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.messages.iter().map(|bytes| u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"))).collect()
    }

    fn look(lanes: &mut SendOrder, outbox: &MemoryQueue) {
        lanes.look(outbox.backlog(TRACES), outbox.end(TRACES).expect("an end"), LIMITS);
    }

    fn take(lanes: &mut SendOrder, lane: Lane, outbox: &MemoryQueue) -> Vec<u64> {
        let batch = lanes.next(lane, LIMITS, |from, limits| outbox.peek_from(TRACES, from, limits));
        outbox.acknowledge(TRACES, lanes.settled(lane, &batch));
        numbers(&batch)
    }

    #[test]
    fn the_newest_go_first_then_the_rest_in_their_order() {
        let (mut lanes, outbox) = (SendOrder::default(), MemoryQueue::default());
        (0..16).for_each(|number| append(&outbox, number));
        look(&mut lanes, &outbox);
        assert!(!lanes.split(), "four requests are no backlog");
        append(&outbox, 16);
        look(&mut lanes, &outbox);
        assert_eq!(take(&mut lanes, Lane::Fresh, &outbox), [15, 16]);
        assert_eq!(take(&mut lanes, Lane::Backlog, &outbox), [0, 1, 2, 3]);
        append(&outbox, 17);
        assert_eq!(take(&mut lanes, Lane::Fresh, &outbox), [17]);
        for expected in [&[4, 5, 6, 7][..], &[8, 9, 10, 11], &[12, 13, 14]] {
            assert_eq!(take(&mut lanes, Lane::Backlog, &outbox), expected);
        }
        assert!(!lanes.split());
        assert_eq!(outbox.backlog(TRACES), Backlog::default());
    }

    #[test]
    fn what_cannot_be_had_fresh_goes_with_the_rest() {
        let (mut lanes, outbox) = (SendOrder::default(), MemoryQueue::default());
        (0..20).for_each(|number| append(&outbox, number));
        look(&mut lanes, &outbox);
        let none = lanes.next(Lane::Fresh, LIMITS, |_, _| Batch::default());
        assert_eq!(none, Batch::default());
        lanes.pass(20);
        assert_eq!(lanes.fresh(20), Some(0));
        append(&outbox, 20);
        assert_eq!(take(&mut lanes, Lane::Fresh, &outbox), [20]);
        let rest: Vec<_> = (0..5).flat_map(|_| take(&mut lanes, Lane::Backlog, &outbox)).collect();
        assert_eq!(rest, (0..20).collect::<Vec<_>>());
        assert!(!lanes.split());
    }

    proptest! {
        /// Steps: 0 and 1 send of a lane, 2 and 3 fail to, else append that many records.
        #[test]
        fn each_record_is_sent_once_and_the_fresh_ones_soon(
            steps in prop::collection::vec(0_u64..12, 0..300), room in 20_usize..200,
        ) {
            let outbox = MemoryQueue::with_room(Room { records: room, bytes: usize::MAX });
            let (mut lanes, mut next, mut sent) = (SendOrder::default(), 0, BTreeMap::new());
            for step in steps {
                look(&mut lanes, &outbox);
                let lane = if step % 2 == 0 { Lane::Fresh } else { Lane::Backlog };
                let end = outbox.end(TRACES).expect("an end");
                prop_assert!(lanes.delivered.len() <= MAX_STRETCHES);
                match step {
                    0 | 1 => {
                        let waits = lane == Lane::Fresh && lanes.fresh(end).is_none_or(|count| count > 0);
                        let taken = take(&mut lanes, lane, &outbox);
                        if waits && let Some(last) = taken.last() {
                            let bounded = lanes.delivered.len() == MAX_STRETCHES;
                            prop_assert!(!lanes.split() || bounded || end - last <= 8, "fresh is {} behind", end - last);
                        }
                        for number in taken {
                            *sent.entry(number).or_insert(0) += 1;
                        }
                    }
                    2 | 3 => drop(lanes.next(lane, LIMITS, |from, limits| outbox.peek_from(TRACES, from, limits))),
                    count => for _ in 0..count { append(&outbox, next); next += 1; },
                }
            }
            for _ in 0..next {
                look(&mut lanes, &outbox);
                for lane in [Lane::Fresh, Lane::Backlog] {
                    let taken = take(&mut lanes, lane, &outbox);
                    for number in taken {
                        *sent.entry(number).or_insert(0) += 1;
                    }
                }
            }
            prop_assert_eq!(outbox.backlog(TRACES), Backlog::default());
            prop_assert!(sent.values().all(|times| *times == 1), "{:?}", sent);
            // What was delivered out of order and then found no room is counted as dropped too, never the other way
            // round.
            prop_assert!(sent.len() as u64 + outbox.dropped(TRACES) >= next);
        }
    }
}
