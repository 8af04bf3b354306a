//! The sampling state of live classes, and its changes, which storage keeps. A class keeps its decision over reloads
//! and restarts.

use std::collections::{BTreeMap, VecDeque};

use liveqos_core::model::Name;
use serde::{Deserialize, Serialize};

use crate::otlp::record::Record;

/// A change of the state. Applied in order to an empty [`Holding`], changes give the same state as
/// [`Holding::changes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// All classes are removed.
    Forgotten,
    /// A new class: the trace state of all its spans, and whether it is kept; otherwise its records are held.
    Decided(Name, String, Kept),
    /// A record of a held class.
    Held(Name, Record),
    /// So many of the oldest records of a class were dropped because the room was full.
    Trimmed(Name, usize),
    /// A held class is kept from now on: its held records were exported.
    Released(Name),
    /// A class ended.
    Gone(Name),
}

/// Whether the records of a class are exported at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// They are.
    Yes,
    /// They are held until its first fault or its end.
    NotYet,
}

impl Change {
    /// What it costs to queue it, in units of a change without a record.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Held(_, record) => 1 + record.bytes.len() / PLAIN_BYTES,
            _ => 1,
        }
    }
}

/// The state of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// The trace state of all its spans.
    pub(crate) state: String,
    /// The held records; `None` once the class is kept.
    held: Option<VecDeque<Record>>,
    /// Whether some of them were dropped because the room was full.
    cut_short: bool,
}

/// The sampling state of all live classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    classes: BTreeMap<Name, Class>,
    bytes: usize,
}

impl Holding {
    /// Applies a change; returns the records that it releases. A change of an unknown class has no effect.
    pub fn apply(&mut self, change: Change) -> VecDeque<Record> {
        match change {
            Change::Forgotten => *self = Self::default(),
            Change::Decided(id, state, kept) => {
                self.remove(&id);
                let held = (kept == Kept::NotYet).then(VecDeque::new);
                self.classes.insert(id, Class { state, held, cut_short: false });
            }
            Change::Held(id, record) => {
                if let Some(held) = self.classes.get_mut(&id).and_then(|class| class.held.as_mut()) {
                    self.bytes += record.bytes.len();
                    held.push_back(record);
                }
            }
            Change::Trimmed(id, count) => {
                if let Some(Class { held: Some(held), cut_short, .. }) = self.classes.get_mut(&id) {
                    *cut_short = true;
                    self.bytes -= held.drain(..count.min(held.len())).map(|record| record.bytes.len()).sum::<usize>();
                }
            }
            Change::Released(id) => {
                let held = self.classes.get_mut(&id).and_then(|class| class.held.take()).unwrap_or_default();
                self.bytes -= bytes(&held);
                return held;
            }
            Change::Gone(id) => self.remove(&id),
        }
        VecDeque::new()
    }

    fn remove(&mut self, id: &Name) {
        if let Some(held) = self.classes.remove(id).and_then(|class| class.held) {
            self.bytes -= bytes(&held);
        }
    }

    /// The changes that build this state from an empty one.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        self.classes.iter().flat_map(|(id, class)| {
            let kept = if class.held.is_some() { Kept::NotYet } else { Kept::Yes };
            let decided = Change::Decided(id.clone(), class.state.clone(), kept);
            let trimmed = class.cut_short.then(|| Change::Trimmed(id.clone(), 0));
            let held = class.held.iter().flatten().map(|record| Change::Held(id.clone(), record.clone()));
            std::iter::once(decided).chain(trimmed).chain(held)
        })
    }

    pub(crate) fn class(&self, id: &Name) -> Option<&Class> {
        self.classes.get(id)
    }

    /// The ids of the classes.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.classes.keys()
    }

    /// Bytes of all held records.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Class {
    pub(crate) const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(crate) const fn is_cut_short(&self) -> bool {
        self.cut_short
    }

    /// How many of the oldest records must be dropped to free `too_many` bytes.
    pub(crate) fn oldest(&self, too_many: usize) -> usize {
        let mut gone = 0;
        let enough = |record: &Record| {
            let more = gone < too_many;
            gone += record.bytes.len();
            more
        };
        self.held.iter().flatten().map(enough).take_while(|more| *more).count()
    }
}

fn bytes(held: &VecDeque<Record>) -> usize {
    held.iter().map(|record| record.bytes.len()).sum()
}

/// The approximate size of a change without a record, in bytes.
const PLAIN_BYTES: usize = 512;
