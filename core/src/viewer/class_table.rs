//! The classes of a fold, with their sums since the last observation. Decides which name is which class and when a
//! class is forgotten. In a full table a class with very few requests makes room, so that invented names do not keep
//! real classes out.

use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::delta::PlaybackDelta;
use super::group_table::{GroupTable, Membership};
use crate::base::ViewerSketch;
use crate::base::keyed_hash::sip_hash;
use crate::model::{Name, Protocol};

/// One class: the sums of its viewers since the last observation.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassFold {
    pub(crate) name: Option<Name>,
    pub(crate) protocol: Option<Protocol>,
    /// Viewers remembered; of them present, exposed in the last minute, and stuttering.
    pub(crate) viewers: u32,
    pub(crate) present: u32,
    pub(crate) exposed: u32,
    pub(crate) stuttering: u32,
    pub(crate) delta: PlaybackDelta,
    /// The groups of its viewers.
    pub(crate) groups: GroupTable,
    /// Whether its next observation includes the groups: once a second.
    pub(crate) groups_due: bool,
    pub(crate) bytes: Option<u64>,
    pub(crate) requests: u64,
    pub(crate) starved: u32,
    pub(crate) first_frames: Vec<Duration>,
    pub(crate) active: bool,
    /// Requests and reports since it was created; stops at [`ESTABLISHED`].
    pub(crate) activity: u8,
    /// Number of present viewers in the last observation.
    pub(crate) present_reported: u32,
    /// The present viewers, where sketches are made.
    pub(crate) sketch: Option<ViewerSketch>,
    hash: u64,
    /// How often this index was reassigned to another class.
    generation: u32,
}

impl ClassFold {
    fn is_of(&self, handle: u32) -> bool {
        self.name.is_some() && self.generation << INDEX_BITS == handle & !INDEX
    }
}

/// The classes.
#[derive(Clone, Debug)]
pub(crate) struct ClassTable {
    key: [u64; 2],
    folds: Vec<ClassFold>,
    index: HashTable<u32>,
    free: Vec<u32>,
    next_probe: usize,
    displaced: u64,
}

impl ClassTable {
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self { key, folds: Vec::new(), index: HashTable::new(), free: Vec::new(), next_probe: 0, displaced: 0 }
    }

    /// The handle of the class with this name.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        let hash = sip_hash(self.key, &[name.as_bytes()]);
        let is_it = |at: &u32| self.folds[*at as usize].name.as_ref().is_some_and(|its| its.as_str() == name);
        self.index.find(hash, is_it).map(|at| self.handle(*at))
    }

    /// As [`ClassTable::find`]; creates the class where it is new and there is room.
    pub(crate) fn enter(&mut self, name: &str) -> Option<u32> {
        let name = Name::new(name).ok()?;
        if let Some(handle) = self.find(name.as_str()) {
            return Some(handle);
        }
        if self.index.len() >= MAX_SESSIONS {
            let victim = self.victim()?;
            self.forget(victim);
            self.displaced += 1;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.folds.push(ClassFold::default());
            self.folds.len() as u32 - 1
        });
        let hash = sip_hash(self.key, &[name.as_str().as_bytes()]);
        let fold = &mut self.folds[at as usize];
        *fold = ClassFold { name: Some(name), hash, generation: fold.generation, ..ClassFold::default() };
        let folds = &self.folds;
        if let Entry::Vacant(entry) = self.index.entry(hash, |other| *other == at, |at| folds[*at as usize].hash) {
            entry.insert(at);
        }
        Some(self.handle(at))
    }

    /// The class of this handle, unless its index was reassigned.
    pub(crate) fn get(&self, handle: u32) -> Option<&ClassFold> {
        self.folds.get((handle & INDEX) as usize).filter(|fold| fold.is_of(handle))
    }

    /// As [`ClassTable::get`].
    pub(crate) fn get_mut(&mut self, handle: u32) -> Option<&mut ClassFold> {
        self.folds.get_mut((handle & INDEX) as usize).filter(|fold| fold.is_of(handle))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut ClassFold> {
        self.folds.iter_mut().filter(|fold| fold.name.is_some())
    }

    /// Forgets classes without viewers and without anything to report.
    pub(crate) fn sweep(&mut self) {
        for at in 0..self.folds.len() as u32 {
            let fold = &self.folds[at as usize];
            if fold.name.is_some() && fold.viewers == 0 && !fold.active && fold.delta == PlaybackDelta::default() {
                self.forget(at);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Classes evicted for others; a running total.
    pub(crate) const fn displaced(&self) -> u64 {
        self.displaced
    }

    fn handle(&self, at: u32) -> u32 {
        self.folds[at as usize].generation << INDEX_BITS | at
    }

    fn forget(&mut self, at: u32) {
        let fold = &mut self.folds[at as usize];
        if let Ok(entry) = self.index.find_entry(fold.hash, |other| *other == at) {
            entry.remove();
        }
        *fold = ClassFold { generation: fold.generation.wrapping_add(1), ..ClassFold::default() };
        self.free.push(at);
    }

    fn victim(&mut self) -> Option<u32> {
        for _ in 0..EVICTION_PROBES {
            self.next_probe = (self.next_probe + 1) % self.folds.len().max(1);
            let fold = &self.folds[self.next_probe];
            if fold.name.is_some() && (fold.activity < ESTABLISHED || (fold.present == 0 && !fold.active)) {
                return Some(self.next_probe as u32);
            }
        }
        None
    }
}

impl ClassFold {
    /// Removes a viewer of these groups.
    pub(crate) fn forget(&mut self, membership: Membership) {
        self.viewers -= 1;
        self.groups.leave(membership);
    }

    /// Counts one request or report.
    pub(crate) const fn record_activity(&mut self) {
        self.active = true;
        self.activity = if self.activity < ESTABLISHED { self.activity + 1 } else { ESTABLISHED };
    }
}

/// Most classes folded at once.
pub const MAX_SESSIONS: usize = 4_000;
/// A class with fewer requests than this may be evicted.
const ESTABLISHED: u8 = 8;
/// Classes examined for one to evict.
const EVICTION_PROBES: usize = 64;
const INDEX_BITS: u32 = 12;
const INDEX: u32 = (1 << INDEX_BITS) - 1;
const _: () = assert!(MAX_SESSIONS <= INDEX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_invalid_after_its_class() {
        let mut classes = ClassTable::new([1, 2]);
        let first = classes.enter("live/a").expect("room");
        assert_eq!((classes.find("live/a"), classes.enter(" live/a ")), (Some(first), Some(first)));
        classes.sweep();
        assert_eq!((classes.len(), classes.find("live/a")), (0, None));
        let second = classes.enter("live/b").expect("room");
        assert!(classes.get_mut(first).is_none() && classes.get_mut(second).is_some());
        assert_eq!(classes.enter("\u{1}"), None);
    }

    #[test]
    fn invented_names_evict_only_each_other() {
        let mut classes = ClassTable::new([1, 2]);
        let real: Vec<_> = (0..100).map(|number| classes.enter(&format!("live/{number}")).expect("room")).collect();
        for handle in &real {
            (0..ESTABLISHED).for_each(|_| classes.get_mut(*handle).expect("there").record_activity());
        }
        let refused = (0..20_000).filter(|number| classes.enter(&format!("made/up{number}")).is_none()).count();
        assert!(real.iter().all(|handle| classes.get_mut(*handle).is_some()));
        assert_eq!((classes.len(), classes.displaced()), (MAX_SESSIONS, (20_100 - MAX_SESSIONS - refused) as u64));
        assert!(refused < 20, "{refused}: the next request of a newcomer looks further on");
    }
}
