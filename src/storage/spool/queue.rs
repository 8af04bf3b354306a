//! One signal's queue: which records are on disk and in memory, which were returned to the sender and acknowledged.
//! Decides what is visible (only what is kept, unless the disk has failed) and what is dropped where there is no room.
//! Does no IO.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::segment::{Mark, Part, Segment, Taken};
use crate::otlp::{Backlog, Batch, Limits, Record, Wakeup};
use crate::storage::disk::MAX_PAYLOAD;

/// The queue of one signal.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Segments on disk, ascending; the last one may still grow.
    pub(crate) segments: VecDeque<Segment>,
    /// Records in memory: those not on disk yet, and before them the newest on disk.
    pub(super) tail: VecDeque<(Mark, Record)>,
    pub(super) tail_bytes: usize,
    /// The part of the tail that is not on disk.
    pub(super) unwritten: Backlog,
    pub(super) next: Mark,
    /// Up to here records may be written: the state that belongs to them is known.
    pub(super) sealed: Mark,
    /// Up to here records are kept.
    pub(super) written: Mark,
    /// Up to here records are acknowledged.
    pub(super) cursor: Mark,
    pub(super) peeked: Option<Peeked>,
    /// Ends of batches that were returned out of order: position, and number of items before it.
    pub(super) out_of_order: BTreeMap<u64, u64>,
    /// Items dropped from disk while in flight: lost unless their batch is acknowledged.
    pub(super) dropped_in_flight: u64,
    /// The file offset of the record at the cursor.
    pub(super) offset: Option<Offset>,
    /// Whether the disk has failed, so that records in memory are visible before they are kept.
    pub(crate) memory_only: bool,
    /// Added to internal positions to give external ones, which stay valid when a folder becomes readable late.
    pub(super) position_offset: u64,
    /// Whether the batch in flight was returned before older records were found: its acknowledgement has no effect, and
    /// it is sent again.
    pub(super) stale_batch: bool,
    pub(crate) dropped: u64,
    pub(crate) damaged: u64,
    pub(crate) wakeup: Option<Arc<Wakeup>>,
}

/// The last batch returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peeked {
    pub(super) until: Mark,
    pub(super) damaged: u64,
    pub(super) offset: Option<Offset>,
}

/// An offset in the file of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offset {
    segment: Mark,
    record: Mark,
    bytes: u64,
}

/// Where the next records are.
pub(crate) enum NextRead {
    /// In memory: the batch.
    Memory(Batch),
    /// In this part of a segment.
    Disk(Part),
}

impl Queue {
    /// A queue that continues with what was found on disk.
    pub(crate) fn resumed(segments: VecDeque<Segment>, cursor: Mark) -> Self {
        let cursor = segments.front().map_or(cursor, |first| first.first.max(cursor));
        let end = segments.back().map_or(cursor, |last| last.end.max(cursor));
        Self { segments, next: end, sealed: end, written: end, cursor, ..Self::default() }
    }

    /// Appends a record; at most `room` bytes stay in memory.
    pub(crate) fn append(&mut self, record: Record, room: usize) {
        if record.bytes.len() > MAX_PAYLOAD {
            self.dropped += u64::from(record.items);
            return;
        }
        self.tail_bytes += record.bytes.len();
        count(&mut self.unwritten, &record, true);
        let at = self.next;
        self.next = at.after(record.items);
        self.tail.push_back((at, record));
        while self.tail_bytes > room || self.tail.len() > MAX_IN_MEMORY {
            if !self.shed_oldest() {
                break;
            }
        }
    }

    /// Removes the oldest record from memory, which drops it where it is not on disk. Records in flight stay.
    fn shed_oldest(&mut self) -> bool {
        let on_disk = self.tail.front().is_some_and(|(at, _)| at.position < self.written.position);
        let in_flight = self.peeked.map_or(0, |peeked| peeked.until.position);
        let index = if on_disk { 0 } else { self.tail.partition_point(|(at, _)| at.position < in_flight) };
        let Some((_, record)) = self.tail.remove(index) else {
            return false;
        };
        self.tail_bytes -= record.bytes.len();
        if !on_disk {
            self.dropped += u64::from(record.items);
            count(&mut self.unwritten, &record, false);
        }
        true
    }

    /// Allows everything appended so far to be written.
    pub(crate) fn seal(&mut self) -> Mark {
        self.sealed = self.next;
        self.sealed
    }

    /// The records before `until` that are not on disk.
    pub(crate) fn unwritten(&self, until: Mark) -> Vec<(Mark, Record)> {
        let from = self.tail.partition_point(|(at, _)| at.position < self.written.position);
        let to = self.tail.partition_point(|(at, _)| at.position < until.position);
        self.tail.range(from..to.max(from)).cloned().collect()
    }

    /// Whether sealed records wait to be written.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.written < self.sealed
    }

    /// Records before `until` are kept now, in these segments besides the known ones; the first may be one that grew.
    pub(crate) fn written_until(&mut self, until: Mark, grown: &[Segment]) {
        for segment in grown {
            match self.segments.back_mut() {
                Some(last) if last.first == segment.first => *last = *segment,
                _ => self.segments.push_back(*segment),
            }
        }
        for (_, record) in self.tail.iter().filter(|(at, _)| *at >= self.written && *at < until) {
            count(&mut self.unwritten, record, false);
        }
        self.written = self.written.max(until);
        self.sealed = self.sealed.max(until);
    }

    /// Where the next records are; `None` where none is visible.
    pub(crate) fn next_read(&mut self, limits: Limits) -> Option<NextRead> {
        self.dropped += std::mem::take(&mut self.dropped_in_flight);
        self.stale_batch = false;
        self.cursor = self.cursor.max(self.oldest());
        let held = self.tail.front().is_some_and(|(at, _)| at.position == self.cursor.position);
        if !held {
            let segment = self.segments.iter().find(|segment| segment.end.position > self.cursor.position)?;
            let known = self.offset.filter(|at| at.segment == segment.first && at.record == self.cursor);
            let offset = known.map_or(0, |at| at.bytes);
            return Some(NextRead::Disk(Part { segment: *segment, from: self.cursor.max(segment.first), offset }));
        }
        let (batch, until) = self.in_memory(0, limits);
        self.peeked = Some(Peeked { until, damaged: 0, offset: None });
        (!batch.messages.is_empty()).then(|| NextRead::Memory(self.to_external(batch)))
    }

    /// Records in memory from position `from` on, out of order. Empty where they are only on disk: those are sent with
    /// the backlog.
    pub(crate) fn peek_fresh(&mut self, from: u64, limits: Limits) -> Batch {
        let index = self.tail.partition_point(|(at, _)| at.position < from);
        let in_memory =
            self.tail.get(index).is_some_and(|(at, _)| at.position == from || from >= self.written.position);
        if !in_memory {
            return Batch::default();
        }
        let (batch, until) = self.in_memory(index, limits);
        if !batch.messages.is_empty() {
            self.out_of_order.insert(until.position, until.item);
            if self.out_of_order.len() > MAX_OUT_OF_ORDER {
                self.out_of_order.pop_first();
            }
        }
        batch
    }

    /// The position after the last visible record.
    pub(super) const fn visible(&self) -> Mark {
        if self.memory_only { self.sealed } else { self.written }
    }

    /// Consecutive records of the tail from the one at `index` on.
    fn in_memory(&self, index: usize, limits: Limits) -> (Batch, Mark) {
        let visible = self.visible();
        let (mut batch, mut room, mut until) = (Batch::default(), limits.bytes, self.cursor);
        for (at, record) in self.tail.range(index..).take_while(|(at, _)| at.position < visible.position) {
            if !batch.messages.is_empty() && at.position != until.position {
                break;
            }
            let len = crate::otlp::request::field_len(record.bytes.len());
            let full = batch.items + u64::from(record.items) > limits.items || len > room;
            if full && !batch.messages.is_empty() {
                break;
            }
            room = room.saturating_sub(len);
            batch.items += u64::from(record.items);
            until = at.after(record.items);
            batch.messages.push(record.bytes.clone());
        }
        batch.until = until.position;
        (batch, until)
    }

    /// The position of the oldest record that is left.
    fn oldest(&self) -> Mark {
        let on_disk = self.segments.iter().find(|segment| segment.end > self.cursor);
        let held = self.tail.front().map(|(at, _)| *at);
        match (on_disk, held) {
            (Some(segment), _) => segment.first,
            (None, Some(at)) => at,
            (None, None) => self.cursor,
        }
    }

    /// Records what was read from disk and returns it as a batch.
    pub(crate) fn record_read(&mut self, segment: Mark, taken: Taken) -> Batch {
        let offset = Offset { segment, record: taken.until, bytes: taken.offset };
        self.peeked = Some(Peeked { until: taken.until, damaged: taken.damaged, offset: Some(offset) });
        if taken.messages.is_empty() {
            self.acknowledge(taken.until.position);
            return Batch::default();
        }
        Batch { messages: taken.messages, items: taken.items, until: taken.until.position }
    }

    /// Removes a segment whose file does not exist any more.
    pub(crate) fn remove_missing(&mut self, segment: Segment) {
        let before = self.segments.len();
        self.segments.retain(|known| known.first != segment.first);
        if self.segments.len() < before {
            let lost = segment.end.position - self.cursor.position.clamp(segment.first.position, segment.end.position);
            self.damaged = self.damaged.saturating_add(lost);
            self.cursor = self.cursor.max(segment.end);
        }
    }

    /// Removes all records before `until`: they were delivered, or never will be. That may be none, or more than the
    /// last batch: records after it that were returned out of order.
    pub(super) fn acknowledge(&mut self, until: u64) {
        let until = until.min(self.next.position);
        let peeked = self.peeked.take().filter(|peeked| peeked.until.position <= until);
        if peeked.is_some() {
            self.dropped_in_flight = 0;
        }
        if until <= self.cursor.position {
            return;
        }
        let reached = peeked.map_or(self.cursor, |peeked| peeked.until.max(self.cursor));
        self.cursor = self.mark_at(until, reached);
        self.damaged = self.damaged.saturating_add(peeked.map_or(0, |peeked| peeked.damaged));
        self.offset = peeked.filter(|peeked| peeked.until.position == until).and_then(|peeked| peeked.offset);
        self.out_of_order = self.out_of_order.split_off(&until);
        while let Some((at, record)) = self.tail.pop_front_if(|(at, _)| at.position < until) {
            self.tail_bytes -= record.bytes.len();
            if at >= self.written {
                count(&mut self.unwritten, &record, false);
            }
        }
        // Records sent from memory while the disk failed need not be written any more.
        self.written = self.written.max(self.cursor);
        self.sealed = self.sealed.max(self.cursor);
    }

    /// The mark of `position`, which is not before `reached`.
    fn mark_at(&self, position: u64, reached: Mark) -> Mark {
        let bounds = self.segments.iter().flat_map(|segment| [segment.first, segment.end]);
        let held = self.tail.binary_search_by_key(&position, |(at, _)| at.position).ok();
        let skipped = self.out_of_order.get(&position).map(|item| Mark { position, item: *item });
        let known = [held.map(|index| self.tail[index].0), Some(self.next), skipped].into_iter().flatten();
        // One item for each record: right except for metrics, where the next segment's name corrects it.
        let plain = Mark { position, item: reached.item.saturating_add(position.saturating_sub(reached.position)) };
        known.chain(bounds).find(|mark| mark.position == position).unwrap_or(plain)
    }

    /// Removes and returns segments that are no longer needed; `growing` is the one being written.
    pub(crate) fn drained(&mut self, growing: Option<Mark>) -> Vec<Segment> {
        let mut out = Vec::new();
        while let Some(first) =
            self.segments.pop_front_if(|first| first.end <= self.cursor && Some(first.first) != growing)
        {
            out.push(first);
        }
        out
    }

    /// Drops and returns the oldest segment, because the bound is exceeded; its undelivered records are counted.
    pub(crate) fn drop_oldest(&mut self, growing: Option<Mark>) -> Option<Segment> {
        let oldest = self.segments.pop_front_if(|first| Some(first.first) != growing)?;
        let in_flight = self.peeked.map_or(self.cursor, |peeked| peeked.until.max(self.cursor));
        let returned = in_flight.item.clamp(oldest.first.item, oldest.end.item.max(oldest.first.item));
        self.dropped = self.dropped.saturating_add(oldest.end.item.saturating_sub(returned));
        self.dropped_in_flight += returned.saturating_sub(self.cursor.item.max(oldest.first.item));
        if self.cursor < oldest.end {
            self.cursor = oldest.end;
        }
        Some(oldest)
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(crate) const fn cursor(&self) -> Mark {
        self.cursor
    }

    pub(crate) const fn written(&self) -> Mark {
        self.written
    }

    pub(crate) const fn sealed(&self) -> Mark {
        self.sealed
    }

    /// The visible records.
    pub(crate) fn backlog(&self) -> Backlog {
        let mut out = if self.memory_only { self.unwritten } else { Backlog::default() };
        for segment in self.segments.iter().filter(|segment| segment.end > self.cursor) {
            let from = segment.first.max(self.cursor);
            let whole = (segment.end.position - segment.first.position).max(1);
            let left = segment.end.position - from.position;
            out.records += left;
            out.items = out.items.saturating_add(segment.end.item.saturating_sub(from.item));
            out.bytes += (u128::from(segment.bytes) * u128::from(left) / u128::from(whole)) as u64;
        }
        out
    }
}

fn count(backlog: &mut Backlog, record: &Record, more: bool) {
    let (items, bytes) = (u64::from(record.items), record.bytes.len() as u64);
    if more {
        backlog.records += 1;
        backlog.items += items;
        backlog.bytes += bytes;
    } else {
        backlog.records -= 1;
        backlog.items -= items;
        backlog.bytes -= bytes;
    }
}

/// Most batches returned out of order that are remembered; far more than a sender has.
const MAX_OUT_OF_ORDER: usize = 256;
/// Most records of a signal in memory, which bounds the bookkeeping of tiny ones.
const MAX_IN_MEMORY: usize = 262_144;
