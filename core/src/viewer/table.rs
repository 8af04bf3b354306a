//! All viewers of a fold: dense, found by keyed hash, bounded. When it is full, a viewer that was seen once or is no
//! longer present makes room; a new viewer is refused only where all that are examined are present and were seen twice.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::class_table::ClassFold;
use super::delta::PlaybackDelta;
use super::group_table::{Membership, Watched};
use super::origin::{GroupRules, Origin};
use super::playback::Viewer;
use super::recent_stall::Recent;
use crate::model::Timestamp;

/// One viewer and what the fold keeps with it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Keyed hash of what identifies it.
    pub(crate) id: u64,
    /// Its playback.
    pub(crate) viewer: Viewer,
    /// Its last minute.
    pub(crate) recent: Recent,
    /// The last window in which it reported a dry buffer.
    pub(crate) starved: u32,
    /// Whether it was seen more than once.
    pub(crate) is_known: bool,
    /// Its groups in its class.
    pub(crate) groups: Membership,
}

/// The viewers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ViewerTable {
    slots: Vec<Slot>,
    index: HashTable<u32>,
    /// Where the next search for room begins.
    next_probe: usize,
}

/// The outcome of entering a viewer, with its index.
pub(crate) enum Admission {
    /// It was there.
    Known(usize),
    /// It is new; with the viewer evicted for it where the table was full.
    New(usize, Option<Slot>),
    /// There is no room.
    Full,
}

impl ViewerTable {
    /// The index of the viewer with this hash.
    pub(crate) fn find(&self, id: u64) -> Option<usize> {
        self.index.find(id, |at| self.slots[*at as usize].id == id).map(|at| *at as usize)
    }

    /// The viewer of this hash, created in `session` where it is new; viewers last seen before `present_since` may be
    /// evicted.
    pub(crate) fn enter(&mut self, id: u64, session: u32, present_since: u64) -> Admission {
        if let Some(at) = self.find(id) {
            return Admission::Known(at);
        }
        let mut gone = None;
        if self.slots.len() >= MAX_VIEWERS {
            let Some(victim) = self.victim(present_since) else {
                return Admission::Full;
            };
            gone = Some(self.remove(victim));
        }
        let slots = &mut self.slots;
        let at = slots.len();
        if let Entry::Vacant(entry) =
            self.index.entry(id, |at| slots[*at as usize].id == id, |at| slots[*at as usize].id)
        {
            entry.insert(at as u32);
        }
        let viewer = Viewer::of(session);
        let (recent, groups) = (Recent::default(), Membership::UNKNOWN);
        slots.push(Slot { id, viewer, recent, starved: 0, is_known: false, groups });
        Admission::New(at, gone)
    }

    pub(crate) fn get(&self, at: usize) -> &Slot {
        &self.slots[at]
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> &mut Slot {
        &mut self.slots[at]
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Keeps the viewers for which `is_kept` holds.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&mut Slot) -> bool) {
        let mut at = 0;
        while let Some(slot) = self.slots.get_mut(at) {
            if is_kept(slot) {
                at += 1;
            } else {
                self.remove(at);
            }
        }
    }

    /// The last viewer takes the removed one's index, so that there are no holes.
    fn remove(&mut self, at: usize) -> Slot {
        let gone = self.slots.swap_remove(at);
        if let Ok(entry) = self.index.find_entry(gone.id, |index| *index as usize == at) {
            entry.remove();
        }
        if let Some(moved) = self.slots.get(at) {
            let was = self.slots.len();
            if let Some(index) = self.index.find_mut(moved.id, |index| *index as usize == was) {
                *index = at as u32;
            }
        }
        gone
    }

    fn victim(&mut self, present_since: u64) -> Option<usize> {
        for _ in 0..EVICTION_PROBES {
            self.next_probe = (self.next_probe + 1) % self.slots.len().max(1);
            let slot = &self.slots[self.next_probe];
            if !slot.is_known || slot.viewer.seen < present_since {
                return Some(self.next_probe);
            }
        }
        None
    }
}

impl Slot {
    /// Assigns the viewer to its groups; returns how many had no room.
    pub(crate) fn assign_groups(&mut self, fold: &mut ClassFold, rules: &GroupRules, origin: &Origin<'_>) -> u32 {
        let refused;
        (self.groups, refused) = fold.groups.enter(rules, origin);
        refused
    }

    /// Records what was reported of this viewer, for itself and its groups.
    pub(crate) fn record_delta(&mut self, now: Timestamp, before: PlaybackDelta, fold: &mut ClassFold) {
        let after = fold.delta;
        let exposure = after.exposure_millis.saturating_sub(before.exposure_millis);
        let stalled = after.stalled_millis.saturating_sub(before.stalled_millis);
        let starts = after.starts.saturating_sub(before.starts);
        if exposure | stalled != 0 {
            self.recent.add(now.millis(), exposure, stalled);
        }
        if exposure | stalled | u64::from(starts) != 0 {
            let millis = |millis| u32::try_from(millis).unwrap_or(u32::MAX);
            let delta = Watched { exposure_millis: millis(exposure), stalled_millis: millis(stalled), starts };
            fold.groups.add(self.groups, delta);
        }
    }
}

/// Most viewers remembered of all classes.
pub const MAX_VIEWERS: usize = 500_000;
/// Viewers examined for one to evict.
const EVICTION_PROBES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_is_small() {
        assert!(size_of::<Slot>() <= 112, "{}", size_of::<Slot>());
    }

    #[test]
    fn others_are_found_after_a_removal() {
        let mut table = ViewerTable::default();
        for id in 0..1_000_u64 {
            assert!(matches!(table.enter(id << 56 | id, 0, 0), Admission::New(..)));
        }
        table.retain(|slot| !slot.id.is_multiple_of(3));
        for id in 0..1_000_u64 {
            let id = id << 56 | id;
            let found = table.find(id).map(|at| table.slots[at].id);
            assert_eq!(found, (!id.is_multiple_of(3)).then_some(id));
        }
    }
}
