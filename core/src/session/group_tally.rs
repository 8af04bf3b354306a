//! Exposure and stalls of one leg's viewers by group. Decides which groups are kept: at most [`MAX_GROUPS`], those that
//! stall most; the others stay in the sums without a name.

use std::time::Duration;

use crate::model::{Group, GroupKind, GroupView, MAX_GROUPS, Timestamp};

/// The groups of one leg, decaying.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    kept: Vec<(Group, Tally)>,
    faded: Option<Timestamp>,
    left_out: u64,
}

/// Decaying sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Viewer-seconds in playing or stalled state.
    pub exposure: f32,
    /// Of them stalled.
    pub stalled: f32,
    /// Stalls that began.
    pub starts: f32,
    /// Most groups that this may stand for.
    pub groups: f32,
}

impl Groups {
    /// Folds what was reported of groups at `at`.
    pub fn take(&mut self, at: Timestamp, views: Vec<GroupView>) {
        self.fade(at);
        let mut left_out = [0; GroupKind::ALL.len()];
        for view in views {
            let reported = Tally {
                exposure: view.exposure.as_secs_f32(),
                stalled: view.stalled.min(view.exposure).as_secs_f32(),
                starts: view.stall_starts as f32,
                groups: view.groups as f32,
            };
            if view.group.is_named() && self.find(&view.group).is_err() && self.named() >= MAX_GROUPS {
                let (group, replaced) = self.replace(view.group, reported);
                left_out[group.kind() as usize] += 1;
                self.left_out += 1;
                self.add(Group::Others(group.kind()), Tally { groups: 0.0, ..replaced });
            } else {
                self.add(view.group, reported);
            }
        }
        for (kind, left_out) in GroupKind::ALL.into_iter().zip(left_out).filter(|(_, left_out)| *left_out > 0) {
            if let Ok(index) = self.find(&Group::Others(kind)) {
                let groups = &mut self.kept[index].1.groups;
                *groups = groups.max(left_out as f32);
            }
        }
    }

    /// The groups kept.
    pub fn iter(&self) -> impl Iterator<Item = (&Group, &Tally)> {
        self.kept.iter().map(|(group, tally)| (group, tally))
    }

    /// Running total of groups left out because the table was full.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn find(&self, group: &Group) -> Result<usize, usize> {
        self.kept.binary_search_by(|(kept, _)| kept.cmp(group))
    }

    /// Number of named groups; they come before the others.
    fn named(&self) -> usize {
        self.kept.partition_point(|(group, _)| group.is_named())
    }

    fn add(&mut self, group: Group, sums: Tally) {
        match self.find(&group) {
            Ok(index) => self.kept[index].1.add(sums),
            Err(index) => {
                self.kept.reserve_exact(4);
                self.kept.insert(index, (group, sums));
            }
        }
    }

    fn fade(&mut self, at: Timestamp) {
        let elapsed = at.since(self.faded.replace(at).unwrap_or(at));
        let kept = (-elapsed.as_secs_f32() / HALF_LIFE.as_secs_f32()).exp2();
        for (group, tally) in &mut self.kept {
            tally.exposure *= kept;
            tally.stalled *= kept;
            tally.starts *= kept;
            if !group.is_named() {
                tally.groups *= kept;
            }
        }
        self.kept.retain(|(_, tally)| tally.exposure > 0.01);
    }

    /// Replaces the group that stalls least by one that stalls more; gives the one left out.
    fn replace(&mut self, group: Group, sums: Tally) -> (Group, Tally) {
        let named = &self.kept[..self.named()];
        let least_stalled = named.iter().enumerate().min_by(|a, b| a.1.1.stalled.total_cmp(&b.1.1.stalled));
        let Some(index) = least_stalled.filter(|(_, kept)| kept.1.stalled < sums.stalled).map(|(index, _)| index)
        else {
            return (group, sums);
        };
        let gone = self.kept.remove(index);
        self.add(group, sums);
        gone
    }
}

impl Tally {
    pub(crate) fn add(&mut self, more: Self) {
        self.exposure += more.exposure;
        self.stalled += more.stalled;
        self.starts += more.starts;
        self.groups = self.groups.max(more.groups);
    }
}

/// Half-life of the sums: a fault is located by what happens now.
pub(crate) const HALF_LIFE: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    fn view(network: u64, stalled_millis: u64) -> GroupView {
        GroupView {
            group: Group::Network(network),
            groups: 1,
            exposure: Duration::from_secs(10),
            stalled: Duration::from_millis(stalled_millis),
            stall_starts: (stalled_millis / 200) as u32,
        }
    }

    #[test]
    fn the_groups_that_stall_most_are_kept() {
        let mut groups = Groups::default();
        let healthy = (0..100).map(|network| view(network, 0));
        groups.take(Timestamp::from_secs(1), healthy.chain([view(1_000, 900)]).collect());
        assert!(groups.iter().count() == MAX_GROUPS + 1 && groups.left_out() == 69);
        let others = groups.iter().find(|(group, _)| **group == Group::Others(GroupKind::Network));
        let others = others.expect("what is left out stays in the sums").1;
        assert_eq!((others.groups, others.exposure), (69.0, 690.0));
        assert!(groups.iter().any(|(group, tally)| *group == Group::Network(1_000) && tally.stalled > 0.8));
        groups.take(Timestamp::from_secs(600), Vec::new());
        assert_eq!(groups.iter().count(), 0, "old reports are forgotten");
    }
}
