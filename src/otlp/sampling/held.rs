//! What was decided of each class and what is held back of it: as changes that can be kept, and as what they add up to.
//! Decides that a class's decision outlives settings and restarts; refuses to know more of a class than it was told.

use std::collections::{BTreeMap, VecDeque};

use liveqos_core::model::Name;
use serde::{Deserialize, Serialize};

use crate::otlp::record::Record;

/// A change. Folded in order from nothing, or from [`Holding::changes`], they give the same holding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// All classes are forgotten.
    Forgotten,
    /// A class was seen first; all its spans carry this trace state. What is not kept is held.
    Decided(Name, String, Kept),
    /// A record of a held class waits.
    Held(Name, Record),
    /// So many of its oldest records went for want of room.
    Trimmed(Name, usize),
    /// A held class is kept from now on: what waited has left.
    Released(Name),
    /// A class is over.
    Gone(Name),
}

/// Whether a class leaves as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It does.
    Yes,
    /// It waits for its first fault or its end.
    NotYet,
}

impl Change {
    /// What it costs to keep it waiting, in plain changes.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Held(_, record) => 1 + record.bytes.len() / PLAIN_BYTES,
            _ => 1,
        }
    }
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// The trace state of all its spans.
    pub(crate) state: String,
    /// What waits for a decision; `None` once it is kept.
    held: Option<VecDeque<Record>>,
    /// Whether some of it went for want of room.
    cut_short: bool,
}

/// The classes that live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    classes: BTreeMap<Name, Class>,
    bytes: usize,
}

impl Holding {
    /// Takes over a change; gives the records that it lets go. One that speaks of a class that nobody knows changes
    /// nothing.
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

    /// The changes that give this holding from nothing.
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

    /// The classes it knows.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.classes.keys()
    }

    /// Bytes of all that is held.
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

    /// How many of its oldest records make room for `too_many` bytes.
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

/// About what a change without a record takes.
const PLAIN_BYTES: usize = 512;
