//! A queue whose folder can be read only later. Decides how places are told outside, so that they stay as they were
//! told when what is found at last goes before what came since; refuses to take the settling of what was given out
//! before for that of older records.

use std::collections::VecDeque;

use super::queue::{Peeked, Queue};
use super::segment::{Mark, Segment};
use crate::otlp::Batch;

/// How far places moved when older records were put before them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Move {
    from: Mark,
    to: Mark,
}

impl Move {
    /// Where `mark` is now.
    pub(crate) const fn moved(self, mark: Mark) -> Mark {
        Mark {
            position: mark.position.saturating_sub(self.from.position).saturating_add(self.to.position),
            item: mark.item.saturating_sub(self.from.item).saturating_add(self.to.item),
        }
    }
}

impl Queue {
    /// A queue of which nobody knows yet what is on disk: room is left before it.
    pub(crate) fn unread() -> Self {
        Self { ahead: ROOM_BEFORE, ..Self::default() }
    }

    /// Puts what was found on disk at last before what came since.
    pub(crate) fn join(&mut self, segments: VecDeque<Segment>, cursor: Mark) -> Move {
        let found = Self::resumed(segments, cursor);
        let moves = Move { from: self.tail.front().map_or(self.next, |(at, _)| *at), to: found.next };
        self.tail.iter_mut().for_each(|(at, _)| *at = moves.moved(*at));
        for mark in [&mut self.next, &mut self.sealed, &mut self.written] {
            *mark = moves.moved(*mark);
        }
        let skips = std::mem::take(&mut self.skips).into_iter();
        let skips = skips.map(|(position, item)| moves.moved(Mark { position, item }));
        self.skips = skips.map(|mark| (mark.position, mark.item)).collect();
        self.ahead = self.ahead.saturating_add(moves.from.position).saturating_sub(moves.to.position);
        let waits = found.cursor < found.next;
        self.overtaken = waits && self.peeked.is_some();
        let peeked = self.peeked.take().filter(|_| !waits);
        self.peeked = peeked.map(|peeked| Peeked { until: moves.moved(peeked.until), ..peeked });
        self.cursor = found.cursor;
        self.segments = found.segments;
        moves
    }

    /// `batch` as outside counts positions.
    pub(crate) fn outside(&self, batch: Batch) -> Batch {
        if batch == Batch::default() { batch } else { Batch { until: batch.until.saturating_add(self.ahead), ..batch } }
    }

    /// A position as inside counts it.
    pub(crate) const fn inside(&self, position: u64) -> u64 {
        position.saturating_sub(self.ahead)
    }

    /// The position behind what a reader may see, as outside counts it.
    pub(crate) const fn end(&self) -> u64 {
        self.visible().position.saturating_add(self.ahead)
    }

    /// All before `until`, as outside counts it, is delivered or never will be.
    pub(crate) fn settled(&mut self, until: u64) {
        if !std::mem::take(&mut self.overtaken) {
            self.acknowledge(self.inside(until));
        }
    }
}

/// Positions before a queue whose folder cannot be read yet: more than any queue has had.
const ROOM_BEFORE: u64 = 1 << 48;
