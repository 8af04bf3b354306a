//! The groups of one class's viewers, with the sums of each since the last observation. Viewers of an unknown group, or
//! that arrive when the table is full, count among the others.

use std::sync::Arc;
use std::time::Duration;

use super::origin::{GroupRules, Origin};
use crate::model::{Group, GroupKind, GroupView, MAX_GROUPS};

/// The groups of one class.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupTable {
    kinds: [Kind; KINDS],
    /// Whether anybody stalled since the groups were last reported, and how many calls ago that was.
    stalled: bool,
    quiet_takes: u8,
}

/// The groups of one kind; empty as long as none is known.
#[derive(Clone, Debug, Default)]
struct Kind {
    /// The groups, each with its number of viewers.
    named: Vec<(Group, u32)>,
    /// Sums of the others first, then of each group in the order of `named`; kept apart because every report adds to
    /// them.
    sums: Vec<Watched>,
}

/// A viewer's group of each kind: 0 means the others, else the group's index plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Membership([u8; KINDS]);

/// Sums of viewers; they saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Time in playing or stalled state, ms.
    pub(super) exposure_millis: u32,
    /// Stalled part of the exposure, ms.
    pub(super) stalled_millis: u32,
    /// Stalls that began.
    pub(super) starts: u32,
}

impl GroupTable {
    /// Adds a viewer; returns its groups and how many of them had no room.
    pub(super) fn enter(&mut self, rules: &GroupRules, origin: &Origin<'_>) -> (Membership, u32) {
        let mut membership = Membership([0; KINDS]);
        let mut refused = 0;
        let mut put = |kind, index: Option<Option<u8>>| {
            membership.0[kind as usize] = index.flatten().unwrap_or(0);
            refused += u32::from(index == Some(None));
        };
        let network = origin.network(rules);
        put(
            GroupKind::Network,
            network.map(|group| self.index(GroupKind::Network, |known| *known == group, || group.clone())),
        );
        let region = origin.region().map(|region| {
            let is_it = |known: &Group| matches!(known, Group::Region(name) if **name == *region);
            self.index(GroupKind::Region, is_it, || Group::Region(Arc::from(region)))
        });
        put(GroupKind::Region, region);
        let player = origin.player.named().map(|player| {
            let is_it = |known: &Group| matches!(known, Group::Player(name) if player.is(name));
            self.index(GroupKind::Player, is_it, || Group::Player(player.to_string().into()))
        });
        put(GroupKind::Player, player);
        (membership, refused)
    }

    /// Removes a viewer; the index of a group without viewers is reused.
    pub(super) fn leave(&mut self, membership: Membership) {
        for (kind, index) in self.kinds.iter_mut().zip(membership.0) {
            if let Some((_, viewers)) = usize::from(index).checked_sub(1).and_then(|at| kind.named.get_mut(at)) {
                *viewers = viewers.saturating_sub(1);
            }
        }
    }

    /// Adds what was reported of a viewer.
    #[inline]
    pub(super) fn add(&mut self, membership: Membership, watched: Watched) {
        self.stalled |= watched.stalled_millis | watched.starts != 0;
        for (kind, index) in self.kinds.iter_mut().zip(membership.0) {
            let at = if usize::from(index) < kind.sums.len() { usize::from(index) } else { 0 };
            if let Some(sums) = kind.sums.get_mut(at) {
                sums.add(watched);
            }
        }
    }

    /// The sums since the last report, for a class of `viewers` viewers: at most [`MAX_GROUPS`] groups by name, ranked
    /// by stall time, then exposure, and the others of each kind. A kind of which no group is known is left out.
    /// Without stalls the report can wait: it is made at each [`QUIET_TAKES`]th call.
    pub(super) fn take(&mut self, viewers: u32) -> Vec<GroupView> {
        self.quiet_takes += 1;
        if !self.stalled && self.quiet_takes < QUIET_TAKES {
            return Vec::new();
        }
        (self.stalled, self.quiet_takes) = (false, 0);
        let least = self.least_named_rank();
        let mut views = Vec::with_capacity(MAX_GROUPS + KINDS);
        let mut room = MAX_GROUPS;
        for (Kind { named, sums }, kind) in self.kinds.iter_mut().zip(GroupKind::ALL) {
            let Some((others, sums)) = sums.split_first_mut() else {
                continue;
            };
            let mut rest = std::mem::take(others);
            // Each viewer of unknown group may be a group of its own.
            let mut groups = viewers;
            for ((group, viewers), sums) in named.iter().zip(sums) {
                groups = groups.saturating_sub(*viewers);
                let watched = std::mem::take(sums);
                if watched == Watched::default() {
                    continue;
                }
                if watched.rank() >= least && room > 0 {
                    room -= 1;
                    views.push(watched.view(group.clone(), 1));
                } else {
                    groups = groups.saturating_add(1);
                    rest.add(watched);
                }
            }
            if rest != Watched::default() {
                views.push(rest.view(Group::Others(kind), groups.max(1)));
            }
        }
        views
    }

    /// The lowest rank that is reported by name.
    fn least_named_rank(&self) -> u64 {
        if self.kinds.iter().map(|kind| kind.named.len()).sum::<usize>() <= MAX_GROUPS {
            return 0;
        }
        let ranks = self.kinds.iter().flat_map(|kind| kind.sums.iter().skip(1)).map(|sums| sums.rank());
        let mut ranks: Vec<_> = ranks.filter(|rank| *rank > 0).collect();
        match ranks.len().checked_sub(MAX_GROUPS) {
            Some(at) if at > 0 => *ranks.select_nth_unstable(at).1,
            _ => 0,
        }
    }

    /// The index of a group; a new group reuses the index of one without viewers.
    fn index(&mut self, kind: GroupKind, is_it: impl Fn(&Group) -> bool, group: impl FnOnce() -> Group) -> Option<u8> {
        let Kind { named, sums } = &mut self.kinds[kind as usize];
        let known = named.iter().position(|(group, _)| is_it(group));
        let is_free = |(at, (_, viewers)): &(usize, &(Group, u32))| *viewers == 0 && sums[at + 1] == Watched::default();
        let free = || named.iter().enumerate().find(is_free).map(|(at, _)| at);
        let at = match known.or_else(free) {
            Some(at) if known.is_some() => at,
            Some(at) => {
                named[at].0 = group();
                at
            }
            None if named.len() < MAX_NAMED => {
                if named.len() == named.capacity() {
                    named.reserve_exact(GROWTH);
                    sums.reserve_exact(GROWTH + 1);
                }
                named.push((group(), 0));
                sums.resize(named.len() + 1, Watched::default());
                named.len() - 1
            }
            None => return None,
        };
        named[at].1 = named[at].1.saturating_add(1);
        u8::try_from(at + 1).ok()
    }
}

impl Membership {
    /// Of a viewer whose groups were not determined yet; it counts among the others.
    pub(super) const UNKNOWN: Self = Self([u8::MAX; KINDS]);
}

impl Watched {
    /// Stall time ranks before exposure.
    fn rank(self) -> u64 {
        u64::from(self.stalled_millis) << 32 | u64::from(self.exposure_millis)
    }

    #[inline]
    fn add(&mut self, more: Self) {
        self.exposure_millis = self.exposure_millis.saturating_add(more.exposure_millis);
        self.stalled_millis = self.stalled_millis.saturating_add(more.stalled_millis);
        self.starts = self.starts.saturating_add(more.starts);
    }

    fn view(self, group: Group, groups: u32) -> GroupView {
        GroupView {
            group,
            groups,
            exposure: Duration::from_millis(u64::from(self.exposure_millis)),
            stalled: Duration::from_millis(u64::from(self.stalled_millis)),
            stall_starts: self.starts,
        }
    }
}

const KINDS: usize = GroupKind::ALL.len();
/// Most groups of one kind that the viewers of a class are divided into.
pub(super) const MAX_NAMED: usize = 254;
/// The groups of a class without stalls are reported at each call of this number.
pub(super) const QUIET_TAKES: u8 = 4;
/// Capacity added at once.
const GROWTH: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::viewer::origin::Address;
    use crate::viewer::player_name::PlayerName;

    fn origin(network: u32, agent: &'static str) -> Origin<'static> {
        let address = Address::Known(std::net::Ipv4Addr::from(network << 8).into());
        Origin { address, region: b"", player: PlayerName { agent: agent.as_bytes(), ..PlayerName::default() } }
    }

    fn watched(exposure_millis: u32, stalled_millis: u32) -> Watched {
        Watched { exposure_millis, stalled_millis, starts: u32::from(stalled_millis > 0) }
    }

    proptest! {
        /// In any order of viewers arriving, reporting and leaving, each kind with a known group sums up to all that
        /// was reported since, under few names.
        #[test]
        fn each_kind_sums_up_to_all_that_was_reported(
            actions in prop::collection::vec((0..600_u32, 0..4_usize, 0..5_000_u32, 0..5_000_u32, any::<bool>()), 1..700),
        ) {
            let agents = ["Chrome/1", "Firefox/2", "VLC/3", "unknown agent"];
            let (mut table, rules) = (GroupTable::default(), GroupRules::default());
            let (mut present, mut sums) = (Vec::new(), [(0_u64, 0_u64); 3]);
            for (network, agent, exposure, stalled, leaves) in actions {
                let (membership, refused) = table.enter(&rules, &origin(network, agents[agent]));
                prop_assert!(refused <= 1, "only of networks are there more than {MAX_NAMED}");
                table.add(membership, watched(exposure, stalled.min(exposure)));
                present.push(membership);
                if leaves {
                    present.drain(..present.len() / 2).for_each(|membership| table.leave(membership));
                }
            }
            let kept = present.len() as u32;
            for _ in 0..QUIET_TAKES {
                for view in table.take(kept) {
                    let (all, stalled) = &mut sums[view.group.kind() as usize];
                    *all += view.exposure.as_millis() as u64;
                    *stalled += view.stalled.as_millis() as u64;
                    prop_assert!(view.groups >= 1);
                }
            }
            prop_assert_eq!(table.take(kept).len(), 0);
            prop_assert_eq!(sums[GroupKind::Region as usize], (0, 0), "none is known");
            // No player may be known until the first with a known agent.
            prop_assert!(sums[GroupKind::Player as usize] <= sums[GroupKind::Network as usize]);
        }
    }

    #[test]
    fn viewers_are_summed_by_each_of_their_groups() {
        let (mut table, rules) = (GroupTable::default(), GroupRules::default());
        for (network, agent, stalled) in [(1, "Chrome/1", 0), (1, "Firefox/2", 300), (2, "Chrome/1", 0)] {
            let (membership, refused) = table.enter(&rules, &origin(network, agent));
            assert_eq!(refused, 0);
            table.add(membership, watched(1_000, stalled));
        }
        let views = table.take(3);
        let of = |group: Group| views.iter().find(|view| view.group == group).expect("reported");
        let first = of(Group::network([0, 0], [0, 0, 1, 9].into()));
        assert_eq!((first.exposure, first.stalled.as_millis(), first.stall_starts), (Duration::from_secs(2), 300, 1));
        assert_eq!(of(Group::Player("Chrome 1".into())).exposure, Duration::from_secs(2));
        assert_eq!(views.len(), 4, "no region is known, and every viewer has network and player: {views:?}");
        assert!(table.take(3).is_empty(), "nothing is reported twice");
    }

    #[test]
    fn groups_without_stalls_are_reported_rarely_and_stalls_at_once() {
        let (mut table, rules) = (GroupTable::default(), GroupRules::default());
        let (membership, _) = table.enter(&rules, &origin(1, ""));
        let mut take = |stalled| {
            table.add(membership, watched(1_000, stalled));
            table.take(1).first().map_or(0, |view| view.exposure.as_secs())
        };
        let watched: Vec<_> = [0, 0, 0, 0, 0, 9, 0].map(&mut take).to_vec();
        assert_eq!(watched, [0, 0, 0, 4, 0, 2, 0]);
    }

    #[test]
    fn ungrouped_viewers_stay_in_the_sums() {
        let (mut table, rules) = (GroupTable::default(), GroupRules::default());
        let (ungrouped, _) = table.enter(&rules, &Origin::default());
        table.add(ungrouped, watched(1_000, 1));
        assert!(table.take(1).is_empty(), "no group is known at all");
        let (known, _) = table.enter(&rules, &origin(1, "curl"));
        table.add(ungrouped, watched(1_000, 500));
        table.add(known, watched(1_000, 0));
        let views = table.take(2);
        let others = views.iter().find(|view| view.group == Group::Others(GroupKind::Network)).expect("reported");
        assert_eq!((others.groups, others.stalled.as_millis(), views.len()), (1, 500, 2));
    }

    #[test]
    fn a_full_table_refuses_and_has_room_when_viewers_leave() {
        let (mut table, rules) = (GroupTable::default(), GroupRules::default());
        let most = MAX_NAMED as u32;
        let first = table.enter(&rules, &origin(0, "")).0;
        assert!((1..most).all(|network| table.enter(&rules, &origin(network, "")).1 == 0));
        let (others, refused) = table.enter(&rules, &origin(most, ""));
        assert_eq!((others, refused), (Membership([0; KINDS]), 1));
        table.add(others, watched(1_000, 0));
        for index in 1..=MAX_NAMED as u8 {
            table.add(Membership([index, 0, 0]), watched(u32::from(index), u32::from(index)));
        }
        let views = table.take(most + 1);
        let others = views.last().expect("reported");
        assert_eq!((views.len(), others.groups), (MAX_GROUPS + 1, most - MAX_GROUPS as u32 + 1));
        let exposure: u128 = views.iter().map(|view| view.exposure.as_millis()).sum();
        assert_eq!(exposure, 1_000 + (1..=MAX_NAMED as u128).sum::<u128>(), "every viewer is in one of them");
        table.leave(first);
        assert_eq!(table.enter(&rules, &origin(most, "")), (first, 0));
    }
}
