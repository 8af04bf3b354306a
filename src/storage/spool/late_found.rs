//! A queue whose folder becomes readable only later. Positions given to the reader stay valid when older records are
//! inserted before them: an offset converts between external and internal positions.

use std::collections::VecDeque;

use super::queue::{Peeked, Queue};
use super::segment::{Mark, Segment};
use crate::otlp::Batch;

/// How far positions moved when older records were inserted before them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shift {
    from: Mark,
    to: Mark,
}

impl Shift {
    /// The new position of `mark`.
    pub(crate) const fn apply(self, mark: Mark) -> Mark {
        Mark {
            position: mark.position.saturating_sub(self.from.position).saturating_add(self.to.position),
            item: mark.item.saturating_sub(self.from.item).saturating_add(self.to.item),
        }
    }
}

impl Queue {
    /// A queue of which the records on disk are not known yet; positions are reserved before it.
    pub(crate) fn unread() -> Self {
        Self { position_offset: RESERVED_POSITIONS, ..Self::default() }
    }

    /// Inserts what was found on disk before what was appended since.
    pub(crate) fn join(&mut self, segments: VecDeque<Segment>, cursor: Mark) -> Shift {
        let found = Self::resumed(segments, cursor);
        let shift = Shift { from: self.tail.front().map_or(self.next, |(at, _)| *at), to: found.next };
        self.tail.iter_mut().for_each(|(at, _)| *at = shift.apply(*at));
        for mark in [&mut self.next, &mut self.sealed, &mut self.written] {
            *mark = shift.apply(*mark);
        }
        let out_of_order = std::mem::take(&mut self.out_of_order).into_iter();
        let out_of_order = out_of_order.map(|(position, item)| shift.apply(Mark { position, item }));
        self.out_of_order = out_of_order.map(|mark| (mark.position, mark.item)).collect();
        self.position_offset =
            self.position_offset.saturating_add(shift.from.position).saturating_sub(shift.to.position);
        let has_older = found.cursor < found.next;
        self.stale_batch = has_older && self.peeked.is_some();
        let peeked = self.peeked.take().filter(|_| !has_older);
        self.peeked = peeked.map(|peeked| Peeked { until: shift.apply(peeked.until), ..peeked });
        self.cursor = found.cursor;
        self.segments = found.segments;
        shift
    }

    /// `batch` with its external position.
    pub(crate) fn to_external(&self, batch: Batch) -> Batch {
        if batch == Batch::default() {
            batch
        } else {
            Batch { until: batch.until.saturating_add(self.position_offset), ..batch }
        }
    }

    /// The internal position of an external one.
    pub(crate) const fn to_internal(&self, position: u64) -> u64 {
        position.saturating_sub(self.position_offset)
    }

    /// The external position after the last visible record.
    pub(crate) const fn end(&self) -> u64 {
        self.visible().position.saturating_add(self.position_offset)
    }

    /// Removes all records before the external position `until`: they were delivered, or never will be.
    pub(crate) fn settle(&mut self, until: u64) {
        if !std::mem::take(&mut self.stale_batch) {
            self.acknowledge(self.to_internal(until));
        }
    }
}

/// Positions reserved before a queue whose folder cannot be read yet: more than any queue has had.
const RESERVED_POSITIONS: u64 = 1 << 48;
