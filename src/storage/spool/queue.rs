//! One signal's queue: what of it is on disk, what in memory, what was given out and what was taken. Decides what a
//! reader may see (only what is kept, unless the disk is in trouble) and what goes when there is no room; does no IO
//! itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::segment::{Mark, Part, Segment, Taken};
use crate::otlp::{Backlog, Batch, Limits, Record, Wakeup};
use crate::storage::disk::MAX_PAYLOAD;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// On disk, ascending; the last one may still grow.
    pub(crate) segments: VecDeque<Segment>,
    /// In memory: what is not on disk yet, and before it what is newest on disk.
    pub(super) tail: VecDeque<(Mark, Record)>,
    pub(super) tail_bytes: usize,
    /// Of the tail, what is not on disk.
    pub(super) unwritten: Backlog,
    pub(super) next: Mark,
    /// What may be written: whatever else belongs to it is known.
    pub(super) sealed: Mark,
    /// What is kept.
    pub(super) written: Mark,
    /// What was taken by the collector.
    pub(super) cursor: Mark,
    pub(super) peeked: Option<Peeked>,
    /// Places that were given out before their turn: the position and the items before it.
    pub(super) skips: BTreeMap<u64, u64>,
    /// Items that were dropped from disk while they were on their way: lost where their batch is not settled.
    pub(super) adrift: u64,
    /// Where in the file of which segment the cursor's record begins.
    pub(super) offset: Option<Offset>,
    /// Whether the disk is in trouble, so that readers see what is in memory alone.
    pub(crate) afloat: bool,
    /// What outside adds to positions, so that they stay as they were told when a folder is found late.
    pub(super) ahead: u64,
    /// Whether the batch on its way was given out before older records were found: its settling moves nothing, and it
    /// goes again.
    pub(super) overtaken: bool,
    pub(crate) dropped: u64,
    pub(crate) damaged: u64,
    pub(crate) wakeup: Option<Arc<Wakeup>>,
}

/// What was given out last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peeked {
    pub(super) until: Mark,
    pub(super) damaged: u64,
    pub(super) offset: Option<Offset>,
}

/// A place in a segment's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offset {
    segment: Mark,
    record: Mark,
    bytes: u64,
}

/// Where the next records are found.
pub(crate) enum Look {
    /// Here they are.
    Memory(Batch),
    /// In this part of a segment.
    Disk(Part),
}

impl Queue {
    /// A queue that goes on with what was found on disk.
    pub(crate) fn resumed(segments: VecDeque<Segment>, cursor: Mark) -> Self {
        let cursor = segments.front().map_or(cursor, |first| first.first.max(cursor));
        let end = segments.back().map_or(cursor, |last| last.end.max(cursor));
        Self { segments, next: end, sealed: end, written: end, cursor, ..Self::default() }
    }

    /// Takes a record in; at most `room` bytes stay in memory.
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

    /// Lets the oldest in memory go: for good where it is not on disk, save what is on its way.
    fn shed_oldest(&mut self) -> bool {
        let on_disk = self.tail.front().is_some_and(|(at, _)| at.position < self.written.position);
        let on_the_way = self.peeked.map_or(0, |peeked| peeked.until.position);
        let index = if on_disk { 0 } else { self.tail.partition_point(|(at, _)| at.position < on_the_way) };
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

    /// All that came until now may be written.
    pub(crate) fn seal(&mut self) -> Mark {
        self.sealed = self.next;
        self.sealed
    }

    /// What is sealed before `until` and not on disk.
    pub(crate) fn unwritten(&self, until: Mark) -> Vec<(Mark, Record)> {
        let from = self.tail.partition_point(|(at, _)| at.position < self.written.position);
        let to = self.tail.partition_point(|(at, _)| at.position < until.position);
        self.tail.range(from..to.max(from)).cloned().collect()
    }

    /// Whether anything sealed waits to be written.
    pub(crate) fn wants_writing(&self) -> bool {
        self.written < self.sealed
    }

    /// All before `until` is kept, in these segments beside those known; the first may be one that grew.
    pub(crate) fn wrote(&mut self, until: Mark, grown: &[Segment]) {
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

    /// Where the next records are; `None` where there is none to see.
    pub(crate) fn look(&mut self, limits: Limits) -> Option<Look> {
        self.dropped += std::mem::take(&mut self.adrift);
        self.overtaken = false;
        self.cursor = self.cursor.max(self.first());
        let held = self.tail.front().is_some_and(|(at, _)| at.position == self.cursor.position);
        if !held {
            let segment = self.segments.iter().find(|segment| segment.end.position > self.cursor.position)?;
            let known = self.offset.filter(|at| at.segment == segment.first && at.record == self.cursor);
            let offset = known.map_or(0, |at| at.bytes);
            return Some(Look::Disk(Part { segment: *segment, from: self.cursor.max(segment.first), offset }));
        }
        let (batch, until) = self.in_memory(0, limits);
        self.peeked = Some(Peeked { until, damaged: 0, offset: None });
        (!batch.messages.is_empty()).then(|| Look::Memory(self.outside(batch)))
    }

    /// Records of the tail from `from` on, before their turn. None where they are on disk alone: those go with the
    /// rest.
    pub(crate) fn ahead_of_rest(&mut self, from: u64, limits: Limits) -> Batch {
        let index = self.tail.partition_point(|(at, _)| at.position < from);
        let at_hand = self.tail.get(index).is_some_and(|(at, _)| at.position == from || from >= self.written.position);
        if !at_hand {
            return Batch::default();
        }
        let (batch, until) = self.in_memory(index, limits);
        if !batch.messages.is_empty() {
            self.skips.insert(until.position, until.item);
            if self.skips.len() > MAX_SKIPS {
                self.skips.pop_first();
            }
        }
        batch
    }

    /// The place behind what a reader may see.
    pub(super) const fn visible(&self) -> Mark {
        if self.afloat { self.sealed } else { self.written }
    }

    /// Records of the tail from the one at `index` on that follow each other.
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

    /// The oldest place that anything is left of.
    fn first(&self) -> Mark {
        let on_disk = self.segments.iter().find(|segment| segment.end > self.cursor);
        let held = self.tail.front().map(|(at, _)| *at);
        match (on_disk, held) {
            (Some(segment), _) => segment.first,
            (None, Some(at)) => at,
            (None, None) => self.cursor,
        }
    }

    /// Notes what was read from disk and gives it out.
    pub(crate) fn given(&mut self, segment: Mark, taken: Taken) -> Batch {
        let offset = Offset { segment, record: taken.until, bytes: taken.offset };
        self.peeked = Some(Peeked { until: taken.until, damaged: taken.damaged, offset: Some(offset) });
        if taken.messages.is_empty() {
            self.acknowledge(taken.until.position);
            return Batch::default();
        }
        Batch { messages: taken.messages, items: taken.items, until: taken.until.position }
    }

    /// A segment whose file is not there any more.
    pub(crate) fn missing(&mut self, segment: Segment) {
        let before = self.segments.len();
        self.segments.retain(|known| known.first != segment.first);
        if self.segments.len() < before {
            let lost = segment.end.position - self.cursor.position.clamp(segment.first.position, segment.end.position);
            self.damaged = self.damaged.saturating_add(lost);
            self.cursor = self.cursor.max(segment.end);
        }
    }

    /// All before `until` is delivered or never will be. That may be nothing, or more than was given out last: what
    /// follows it and was given out before its turn.
    pub(super) fn acknowledge(&mut self, until: u64) {
        let until = until.min(self.next.position);
        let peeked = self.peeked.take().filter(|peeked| peeked.until.position <= until);
        if peeked.is_some() {
            self.adrift = 0;
        }
        if until <= self.cursor.position {
            return;
        }
        let reached = peeked.map_or(self.cursor, |peeked| peeked.until.max(self.cursor));
        self.cursor = self.place(until, reached);
        self.damaged = self.damaged.saturating_add(peeked.map_or(0, |peeked| peeked.damaged));
        self.offset = peeked.filter(|peeked| peeked.until.position == until).and_then(|peeked| peeked.offset);
        self.skips = self.skips.split_off(&until);
        while let Some((at, record)) = self.tail.pop_front_if(|(at, _)| at.position < until) {
            self.tail_bytes -= record.bytes.len();
            if at >= self.written {
                count(&mut self.unwritten, &record, false);
            }
        }
        // What was sent from memory while the disk was in trouble need not be written any more.
        self.written = self.written.max(self.cursor);
        self.sealed = self.sealed.max(self.cursor);
    }

    /// The place of `position`, at or behind `reached`.
    fn place(&self, position: u64, reached: Mark) -> Mark {
        let bounds = self.segments.iter().flat_map(|segment| [segment.first, segment.end]);
        let held = self.tail.binary_search_by_key(&position, |(at, _)| at.position).ok();
        let skipped = self.skips.get(&position).map(|item| Mark { position, item: *item });
        let known = [held.map(|index| self.tail[index].0), Some(self.next), skipped].into_iter().flatten();
        // One item a record is right but for metrics, and there until the next segment's name tells better.
        let plain = Mark { position, item: reached.item.saturating_add(position.saturating_sub(reached.position)) };
        known.chain(bounds).find(|mark| mark.position == position).unwrap_or(plain)
    }

    /// Segments of which nothing is needed any more; `growing` is the one that is being written.
    pub(crate) fn drained(&mut self, growing: Option<Mark>) -> Vec<Segment> {
        let mut out = Vec::new();
        while let Some(first) =
            self.segments.pop_front_if(|first| first.end <= self.cursor && Some(first.first) != growing)
        {
            out.push(first);
        }
        out
    }

    /// The oldest segment, dropped because there is too much; its records that nobody got are counted.
    pub(crate) fn drop_oldest(&mut self, growing: Option<Mark>) -> Option<Segment> {
        let oldest = self.segments.pop_front_if(|first| Some(first.first) != growing)?;
        let on_the_way = self.peeked.map_or(self.cursor, |peeked| peeked.until.max(self.cursor));
        let given = on_the_way.item.clamp(oldest.first.item, oldest.end.item.max(oldest.first.item));
        self.dropped = self.dropped.saturating_add(oldest.end.item.saturating_sub(given));
        self.adrift += given.saturating_sub(self.cursor.item.max(oldest.first.item));
        if self.cursor < oldest.end {
            self.cursor = oldest.end;
        }
        Some(oldest)
    }

    /// Bytes on disk.
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

    /// What a reader may see.
    pub(crate) fn backlog(&self) -> Backlog {
        let mut out = if self.afloat { self.unwritten } else { Backlog::default() };
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

/// Most places kept of what was given out before its turn; far more than a sender has on its mind.
const MAX_SKIPS: usize = 256;
/// Most records of a signal in memory, so that tiny ones cannot cost more in bookkeeping than in bytes.
const MAX_IN_MEMORY: usize = 262_144;
