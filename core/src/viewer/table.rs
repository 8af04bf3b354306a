//! All viewers of a fold: dense, found by keyed hash, bounded. Decides who makes room when it is full: who was heard
//! once, or is not there any more; refuses newcomers only where all that it looks at are present and were heard twice.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::class_table::ClassFold;
use super::group_table::{Membership, Watched};
use super::origin::{GroupRules, Origin};
use super::playback::{PlaybackDelta, Viewer};
use super::recent_stall::Recent;
use crate::model::Timestamp;

/// One viewer and what the fold keeps beside it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Keyed hash of what tells it from others.
    pub(crate) id: u64,
    /// What its reports say.
    pub(crate) viewer: Viewer,
    /// Its last minute.
    pub(crate) recent: Recent,
    /// The last window in which it told that its buffer ran dry.
    pub(crate) starved: u32,
    /// Whether it was heard more than once.
    pub(crate) is_known: bool,
    /// Its groups in its class.
    pub(crate) groups: Membership,
}

/// The viewers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ViewerTable {
    slots: Vec<Slot>,
    index: HashTable<u32>,
    /// Where the next look for room begins.
    hand: usize,
}

/// A place in the table.
pub(crate) enum Place {
    /// It was there.
    Known(usize),
    /// It came in; instead of this one where the table was full.
    New(usize, Option<Slot>),
    /// There is no room.
    Full,
}

impl ViewerTable {
    /// The viewer of this hash.
    pub(crate) fn find(&self, id: u64) -> Option<usize> {
        self.index.find(id, |at| self.slots[*at as usize].id == id).map(|at| *at as usize)
    }

    /// The viewer of this hash, new in `session` where it is not there; `present_since`: who was heard before is not
    /// there any more.
    pub(crate) fn enter(&mut self, id: u64, session: u32, present_since: u64) -> Place {
        if let Some(at) = self.find(id) {
            return Place::Known(at);
        }
        let mut gone = None;
        if self.slots.len() >= MAX_VIEWERS {
            let Some(victim) = self.victim(present_since) else {
                return Place::Full;
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
        Place::New(at, gone)
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

    /// Keeps the viewers of which `stays` says so.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&mut Slot) -> bool) {
        let mut at = 0;
        while let Some(slot) = self.slots.get_mut(at) {
            if stays(slot) {
                at += 1;
            } else {
                self.remove(at);
            }
        }
    }

    /// The last one takes the place of the removed one, so that there are no holes.
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
        for _ in 0..LOOKS {
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            let slot = &self.slots[self.hand];
            if !slot.is_known || slot.viewer.seen < present_since {
                return Some(self.hand);
            }
        }
        None
    }
}

impl Slot {
    /// Takes the viewer into its groups; gives how many had no room.
    pub(crate) fn join(&mut self, fold: &mut ClassFold, rules: &GroupRules, origin: &Origin<'_>) -> u32 {
        let refused;
        (self.groups, refused) = fold.groups.enter(rules, origin);
        refused
    }

    /// Notes what was told of this viewer, for itself and its groups.
    pub(crate) fn fares(&mut self, now: Timestamp, was: PlaybackDelta, fold: &mut ClassFold) {
        let is = fold.told;
        let exposure = is.exposure_millis.saturating_sub(was.exposure_millis);
        let stalled = is.stalled_millis.saturating_sub(was.stalled_millis);
        let starts = is.starts.saturating_sub(was.starts);
        if exposure | stalled != 0 {
            self.recent.add(now.millis(), exposure, stalled);
        }
        if exposure | stalled | u64::from(starts) != 0 {
            let millis = |millis| u32::try_from(millis).unwrap_or(u32::MAX);
            let told = Watched { exposure_millis: millis(exposure), stalled_millis: millis(stalled), starts };
            fold.groups.add(self.groups, told);
        }
    }
}

/// Most viewers remembered of all classes.
pub const MAX_VIEWERS: usize = 500_000;
/// Viewers looked at for one that may go.
const LOOKS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_is_small() {
        assert!(size_of::<Slot>() <= 112, "{}", size_of::<Slot>());
    }

    #[test]
    fn removal_leaves_the_others_where_they_are_found() {
        let mut table = ViewerTable::default();
        for id in 0..1_000_u64 {
            assert!(matches!(table.enter(id << 56 | id, 0, 0), Place::New(..)));
        }
        table.retain(|slot| !slot.id.is_multiple_of(3));
        for id in 0..1_000_u64 {
            let id = id << 56 | id;
            let found = table.find(id).map(|at| table.slots[at].id);
            assert_eq!(found, (!id.is_multiple_of(3)).then_some(id));
        }
    }
}
