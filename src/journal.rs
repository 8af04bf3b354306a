//! The journal: a log of what must outlive the daemon beside its spans. Decides when the log is written anew from its newest state, so that
//! it stays as long as what lives; refuses a log whose beginning is not whole.
//!
//! A record is one group of changes and the places that the spool had reached with them. What the spool holds beyond the newest record
//! was told of by nobody and is cut: state and spans are kept together or not at all.

use std::io;
use std::sync::Arc;

use liveqos_core::checkpoint::{Checkpoint, Entry};
use serde::{Deserialize, Serialize};

use crate::disk::frame::{self, Frame};
use crate::disk::{Appender, Disk};
use crate::spool::Places;

/// One record.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Group {
    /// Places reached in each target's queues.
    spool: Places,
    /// The changes.
    entries: Vec<Entry>,
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    number: u64,
    state: Checkpoint,
    /// Changes that are in the state and not yet in the file.
    pending: Vec<Entry>,
    file: Option<Box<dyn Appender>>,
    len: u64,
    /// Length when it was last written anew.
    base_len: u64,
    records: u64,
}

/// What a start finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What lived.
    pub(crate) state: Checkpoint,
    /// Places that the spool of each target had reached.
    pub(crate) places: Places,
    number: u64,
}

impl Found {
    /// Reads the newest journal that has a beginning.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn read(disk: &dyn Disk) -> io::Result<Self> {
        let mut numbers: Vec<u64> = disk.list()?.iter().filter_map(|(name, _)| parse(name)).collect();
        numbers.sort_unstable();
        let number = numbers.last().copied().unwrap_or_default();
        for candidate in numbers.into_iter().rev() {
            let bytes = disk.read(&name(candidate), 0, usize::MAX)?;
            let (records, damaged) = frame::read_all(&bytes, 0, SALT);
            if records.first().is_none_or(|(first, _)| first.number != 0 || first.tag != BASE) {
                tracing::warn!(journal = name(candidate), "a journal without a beginning is not used");
                continue;
            }
            if !damaged.is_empty() {
                tracing::warn!(journal = name(candidate), places = damaged.len(), "the journal is torn or damaged");
            }
            let mut found = Self { number, ..Self::default() };
            for (record, _) in &records {
                found.take(record);
            }
            return Ok(found);
        }
        Ok(Self { number, ..Self::default() })
    }

    fn take(&mut self, record: &Frame) {
        match serde_json::from_slice::<Group>(&record.payload) {
            Ok(group) => {
                self.places = group.spool;
                group.entries.into_iter().for_each(|entry| self.state.apply(entry));
            }
            Err(error) => tracing::warn!(%error, "a record of the journal is of another version and left out"),
        }
    }
}

impl Journal {
    pub(crate) fn new(disk: Arc<dyn Disk>, found: Found) -> Self {
        let (number, state) = (found.number, found.state);
        Self { disk, number, state, pending: Vec::new(), file: None, len: 0, base_len: 0, records: 0 }
    }

    /// Takes over changes, to be kept with the next group.
    pub(crate) fn note(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            self.state.apply(entry.clone());
        }
        if self.file.is_some() {
            self.pending.extend(entries);
        }
    }

    /// Keeps what was noted with the places reached; on disk when this returns.
    ///
    /// # Errors
    /// What the disk says; call [`Journal::close`] then.
    pub(crate) fn keep(&mut self, spool: &Places) -> io::Result<()> {
        let entries = std::mem::take(&mut self.pending);
        match &self.file {
            Some(_) if self.len < self.base_len * 2 + SMALL => self.append(&Group { spool: spool.clone(), entries }, 0),
            _ => self.begin(spool),
        }
    }

    /// Gives the file up: the next group begins a new one with the whole state.
    pub(crate) fn close(&mut self) {
        self.file = None;
        self.pending.clear();
    }

    /// Whether there is anything to keep.
    pub(crate) fn wants(&self) -> bool {
        self.file.is_none() || !self.pending.is_empty()
    }

    /// Writes a new file with the whole state, then removes those before it.
    fn begin(&mut self, spool: &Places) -> io::Result<()> {
        self.number += 1;
        self.records = 0;
        self.len = 0;
        self.file = Some(self.disk.create(&name(self.number))?);
        self.append(&Group { spool: spool.clone(), entries: self.state.entries().collect() }, BASE)?;
        self.base_len = self.len;
        self.disk.sync()?;
        let older = self.disk.list()?.into_iter().filter(|(name, _)| parse(name).is_some_and(|n| n < self.number));
        older.into_iter().try_for_each(|(name, _)| self.disk.remove(&name))
    }

    fn append(&mut self, group: &Group, tag: u32) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        let text = serde_json::to_vec(group).map_err(io::Error::other)?;
        frame::write(&mut bytes, SALT, (tag, self.records), &text);
        file.append(&bytes)?;
        file.sync()?;
        self.records += 1;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

fn name(number: u64) -> String {
    format!("journal-{number:020}.log")
}

fn parse(name: &str) -> Option<u64> {
    name.strip_prefix("journal-")?.strip_suffix(".log")?.parse().ok()
}

/// What tells a journal's records from those of other files.
pub const SALT: u32 = 0x4c51_4a01;
/// Tag of the first record of a file, with the whole state.
pub const BASE: u32 = 1;
/// A journal is not written anew below this.
const SMALL: u64 = 1 << 20;
