//! The journal: a log of everything besides telemetry that outlives the daemon. It is rewritten from its newest state
//! when it has grown, so that its size follows that of the state; a file without a complete beginning is not used.
//!
//! A group of changes contains the positions that the spools had reached with them. Records of a spool beyond those of
//! the newest group are cut: state and spans are kept together or not at all. A long group is several records, and
//! counts once the last of them is complete.

use std::io;
use std::sync::Arc;

use liveqos_core::model::{Checkpoint, Entry};
use serde::{Deserialize, Serialize};

use super::disk::{Appender, Disk, Frame, frame};
use super::spool::TargetMarks;
use crate::otlp::sampling::{Change, Holding};

/// One record, in JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Group {
    /// Positions reached in each target's queues.
    spool: TargetMarks,
    /// How many of the records that follow belong to the group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pieces: u64,
    /// Changes of classes and announcements.
    entries: Vec<Entry>,
    /// Changes of the sampling state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sampled: Vec<Change>,
}

/// Changes to keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changes {
    /// Of classes and announcements.
    pub(crate) entries: Vec<Entry>,
    /// Of the sampling state.
    pub(crate) sampled: Vec<Change>,
}

impl Changes {
    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.sampled.is_empty()
    }

    /// What it costs to queue them, in units of a change without a record.
    pub(crate) fn weight(&self) -> usize {
        self.entries.len() + self.sampled.iter().map(Change::weight).sum::<usize>()
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.entries.extend(more.entries);
        self.sampled.extend(more.sampled);
    }

    /// The changes in pieces that each fit into a record; at least one.
    fn pieces(self) -> Vec<Self> {
        let mut out = vec![Self::default()];
        let mut room = PIECE_CHANGES;
        let mut next = |weight: usize| {
            let fits = weight <= room;
            room = if fits { room } else { PIECE_CHANGES }.saturating_sub(weight);
            fits
        };
        for entry in self.entries {
            if !next(1) {
                out.push(Self::default());
            }
            if let Some(last) = out.last_mut() {
                last.entries.push(entry);
            }
        }
        for change in self.sampled {
            if !next(change.weight()) {
                out.push(Self::default());
            }
            if let Some(last) = out.last_mut() {
                last.sampled.push(change);
            }
        }
        out
    }
}

/// Everything besides telemetry that outlives the daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersistentState {
    /// Classes and announcements.
    pub checkpoint: Checkpoint,
    /// The sampling state.
    pub holding: Holding,
}

impl PersistentState {
    fn apply(&mut self, changes: Changes) {
        changes.entries.into_iter().for_each(|entry| self.checkpoint.apply(entry));
        for change in changes.sampled {
            self.holding.apply(change);
        }
    }

    /// The changes that build it from an empty state.
    fn changes(&self) -> Changes {
        Changes { entries: self.checkpoint.entries().collect(), sampled: self.holding.changes().collect() }
    }
}

/// Writes the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    number: u64,
    state: PersistentState,
    /// Changes in `state` that are not in the file yet.
    pending: Changes,
    file: Option<Box<dyn Appender>>,
    len: u64,
    /// Length after the last rewrite.
    base_len: u64,
    records: u64,
}

/// What a start finds in the folder.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The state at the end.
    pub(crate) state: PersistentState,
    /// Positions that the spool of each target had reached.
    pub(crate) places: TargetMarks,
    number: u64,
}

impl Found {
    /// Reads the newest journal that has a beginning; one with an incomplete beginning only where there is no other.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn read(disk: &dyn Disk) -> io::Result<Self> {
        let mut numbers: Vec<u64> = disk.list()?.iter().filter_map(|(name, _)| parse(name)).collect();
        numbers.sort_unstable();
        let number = numbers.last().copied().unwrap_or_default();
        let mut torn = None;
        for candidate in numbers.into_iter().rev() {
            let bytes = disk.read(&name(candidate), 0, usize::MAX)?;
            let (records, damaged) = frame::read_all(&bytes, 0, SALT);
            if records.first().is_none_or(|(first, _)| first.number != 0 || first.tag != BASE) {
                tracing::warn!(journal = name(candidate), "ignoring a journal without a beginning");
                continue;
            }
            if !damaged.is_empty() {
                tracing::warn!(journal = name(candidate), places = damaged.len(), "the journal is torn or damaged");
            }
            let mut found = Self { number, ..Self::default() };
            if found.fold(records.into_iter().map(|(record, _)| record)) {
                return Ok(found);
            }
            torn.get_or_insert(found);
        }
        Ok(torn.unwrap_or(Self { number, ..Self::default() }))
    }

    /// Applies all complete groups, and the beginning even where it is not; returns whether the beginning is complete.
    fn fold(&mut self, records: impl Iterator<Item = Frame>) -> bool {
        let (mut open, mut whole): (Option<PartialGroup>, bool) = (None, true);
        for record in records {
            let group = match serde_json::from_slice::<Group>(&record.payload) {
                Ok(group) => group,
                Err(error) => {
                    tracing::warn!(%error, "ignoring a record of the journal, which is of another version");
                    continue;
                }
            };
            if record.tag == PIECE {
                if let Some(open) = open.as_mut().filter(|open| open.next == record.number) {
                    open.group.entries.extend(group.entries);
                    open.group.sampled.extend(group.sampled);
                    open.next = open.next.saturating_add(1);
                }
            } else {
                whole &= open.take().is_none_or(|torn| self.give_up(torn));
                open = Some(PartialGroup {
                    base: record.tag == BASE,
                    next: record.number.saturating_add(1),
                    last: record.number.saturating_add(group.pieces),
                    group,
                });
            }
            if let Some(done) = open.take_if(|open| open.next > open.last) {
                self.take(done.group);
            }
        }
        whole & open.is_none_or(|torn| self.give_up(torn))
    }

    /// Drops a group that is not complete, which never counted as kept. Applies it where it is the beginning: that is
    /// better than nothing.
    fn give_up(&mut self, torn: PartialGroup) -> bool {
        let whole = !torn.base;
        if torn.base {
            self.take(torn.group);
        }
        whole
    }

    fn take(&mut self, group: Group) {
        self.places = group.spool;
        self.state.apply(Changes { entries: group.entries, sampled: group.sampled });
    }
}

/// A group of which more records follow.
struct PartialGroup {
    group: Group,
    base: bool,
    /// The numbers of its next record and of its last.
    next: u64,
    last: u64,
}

impl Journal {
    pub(crate) fn new(disk: Arc<dyn Disk>, found: Found) -> Self {
        let (number, state) = (found.number, found.state);
        Self { disk, number, state, pending: Changes::default(), file: None, len: 0, base_len: 0, records: 0 }
    }

    /// Continues after what was found in a folder that became readable late; returns that state for its owners.
    pub(crate) fn continue_after(&mut self, found: Found) -> PersistentState {
        self.number = self.number.max(found.number);
        found.state
    }

    /// Applies changes, to be written with the next group.
    pub(crate) fn apply(&mut self, changes: Changes) {
        self.state.apply(changes.clone());
        if self.file.is_some() {
            self.pending.extend(changes);
        }
    }

    /// Writes the pending changes with the positions reached; on disk when this returns.
    ///
    /// # Errors
    /// Those of the disk; call [`Journal::close`] then.
    pub(crate) fn keep(&mut self, spool: &TargetMarks) -> io::Result<()> {
        let changes = std::mem::take(&mut self.pending);
        match &self.file {
            Some(_) if self.len < self.base_len * 2 + MIN_REWRITE_BYTES => self.append(spool, changes, 0),
            _ => self.begin(spool),
        }
    }

    /// Gives up the file: the next group begins a new one with the whole state.
    pub(crate) fn close(&mut self) {
        self.file = None;
        self.pending = Changes::default();
    }

    /// Whether there is anything to write.
    pub(crate) fn has_pending(&self) -> bool {
        self.file.is_none() || !self.pending.is_empty()
    }

    /// Writes a new file with the whole state, then removes older ones.
    fn begin(&mut self, spool: &TargetMarks) -> io::Result<()> {
        self.number += 1;
        self.records = 0;
        self.len = 0;
        self.file = Some(self.disk.create(&name(self.number))?);
        self.append(spool, self.state.changes(), BASE)?;
        self.base_len = self.len;
        self.disk.sync()?;
        let older = self.disk.list()?.into_iter().filter(|(name, _)| parse(name).is_some_and(|n| n < self.number));
        older.into_iter().try_for_each(|(name, _)| self.disk.remove(&name))
    }

    /// Appends a group whose first record has this tag.
    fn append(&mut self, spool: &TargetMarks, changes: Changes, mut tag: u32) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let pieces = changes.pieces();
        let mut more = pieces.len() as u64 - 1;
        for Changes { entries, sampled } in pieces {
            let group = Group { spool: spool.clone(), pieces: std::mem::take(&mut more), entries, sampled };
            let mut bytes = Vec::new();
            frame::write(&mut bytes, SALT, (tag, self.records), &serde_json::to_vec(&group).map_err(io::Error::other)?);
            file.append(&bytes)?;
            self.records += 1;
            self.len += bytes.len() as u64;
            tag = PIECE;
        }
        file.sync()
    }
}

fn name(number: u64) -> String {
    format!("journal-{number:020}.log")
}

fn parse(name: &str) -> Option<u64> {
    name.strip_prefix("journal-")?.strip_suffix(".log")?.parse().ok()
}

/// The salt of journal records.
pub const SALT: u32 = 0x4c51_4a01;
/// Tag of the first record of a file, with the whole state.
pub const BASE: u32 = 1;
/// A journal shorter than this is not rewritten.
const MIN_REWRITE_BYTES: u64 = 1 << 20;
/// Tag of a further record of the group before it.
pub const PIECE: u32 = 2;
/// Most changes in a record, by their weight: some megabytes, far below [`super::disk::MAX_PAYLOAD`].
const PIECE_CHANGES: usize = 4_000;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
