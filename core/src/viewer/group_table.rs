//! Which viewers of one class are in which group, and what each group told since the last word on it. Decides who is
//! counted among the others: those whose group is not known, or came when the table was full of groups with viewers in
//! them.

use std::sync::Arc;
use std::time::Duration;

use super::origin::{GroupRules, Origin};
use crate::model::{Group, GroupKind, GroupView, MAX_GROUPS};

/// The groups of one class.
#[derive(Clone, Debug, Default)]
pub struct GroupTable {
    kinds: [Kind; KINDS],
    /// Whether anybody stalled since the last word, and how many looks ago that was.
    stalled: bool,
    silent: u8,
}

/// The groups of one kind; empty as long as none is known.
#[derive(Clone, Debug, Default)]
struct Kind {
    /// Each with its viewers.
    named: Vec<(Group, u32)>,
    /// Those of the others first, then of each in the order of `named`: apart, since every report adds to them.
    sums: Vec<Watched>,
}

/// Which group of each kind a viewer is in: 0 is the others, else one more than its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership([u8; KINDS]);

/// What was told of viewers; sums stop at their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Time in playing or stalled state, ms.
    pub exposure_millis: u32,
    /// Of it stalled, ms.
    pub stalled_millis: u32,
    /// Stalls that began.
    pub starts: u32,
}

impl GroupTable {
    /// Takes a viewer in; and how many of its groups have no room.
    pub fn enter(&mut self, rules: &GroupRules, origin: &Origin<'_>) -> (Membership, u32) {
        let mut is = Membership([0; KINDS]);
        let mut left_out = 0;
        let mut put = |kind, place: Option<Option<u8>>| {
            is.0[kind as usize] = place.flatten().unwrap_or(0);
            left_out += u32::from(place == Some(None));
        };
        let network = origin.network(rules);
        put(
            GroupKind::Network,
            network.map(|group| self.place(GroupKind::Network, |known| *known == group, || group.clone())),
        );
        let region = origin.region().map(|region| {
            let is_it = |known: &Group| matches!(known, Group::Region(name) if **name == *region);
            self.place(GroupKind::Region, is_it, || Group::Region(Arc::from(region)))
        });
        put(GroupKind::Region, region);
        let player = origin.player.named().map(|player| {
            let is_it = |known: &Group| matches!(known, Group::Player(name) if player.is(name));
            self.place(GroupKind::Player, is_it, || Group::Player(player.to_string().into()))
        });
        put(GroupKind::Player, player);
        (is, left_out)
    }

    /// A viewer goes; its group makes room when it was the last one.
    pub fn leave(&mut self, is: Membership) {
        for (kind, place) in self.kinds.iter_mut().zip(is.0) {
            if let Some((_, viewers)) = usize::from(place).checked_sub(1).and_then(|at| kind.named.get_mut(at)) {
                *viewers = viewers.saturating_sub(1);
            }
        }
    }

    /// Counts what was told of a viewer.
    #[inline]
    pub fn add(&mut self, is: Membership, told: Watched) {
        self.stalled |= told.stalled_millis | told.starts != 0;
        for (kind, place) in self.kinds.iter_mut().zip(is.0) {
            let at = if usize::from(place) < kind.sums.len() { usize::from(place) } else { 0 };
            if let Some(sums) = kind.sums.get_mut(at) {
                sums.add(told);
            }
        }
    }

    /// What was told since the last time, of a class with `viewers` remembered: at most [`MAX_GROUPS`] groups by name,
    /// those that stall most and then those that watch most, and the others of each kind. Nothing of a kind of which no
    /// group is known. Where nobody stalls it can wait: it is told at each [`CALM_LOOKS`]th call.
    pub fn take(&mut self, viewers: u32) -> Vec<GroupView> {
        self.silent += 1;
        if !self.stalled && self.silent < CALM_LOOKS {
            return Vec::new();
        }
        (self.stalled, self.silent) = (false, 0);
        let least = self.least_told();
        let mut views = Vec::with_capacity(MAX_GROUPS + KINDS);
        let mut room = MAX_GROUPS;
        for (Kind { named, sums }, kind) in self.kinds.iter_mut().zip(GroupKind::ALL) {
            let Some((others, sums)) = sums.split_first_mut() else {
                continue;
            };
            let mut rest = std::mem::take(others);
            // Each viewer of whom nothing is known may be a group of its own.
            let mut groups = viewers;
            for ((group, viewers), sums) in named.iter().zip(sums) {
                groups = groups.saturating_sub(*viewers);
                let told = std::mem::take(sums);
                if told == Watched::default() {
                    continue;
                }
                if told.rank() >= least && room > 0 {
                    room -= 1;
                    views.push(told.view(group.clone(), 1));
                } else {
                    groups = groups.saturating_add(1);
                    rest.add(told);
                }
            }
            if rest != Watched::default() {
                views.push(rest.view(Group::Others(kind), groups.max(1)));
            }
        }
        views
    }

    /// The rank of the last group that is told by its name.
    fn least_told(&self) -> u64 {
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

    /// The place of a group; that of one that nobody is in any more where it is new.
    fn place(&mut self, kind: GroupKind, is_it: impl Fn(&Group) -> bool, group: impl FnOnce() -> Group) -> Option<u8> {
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
                    named.reserve_exact(ROOM);
                    sums.reserve_exact(ROOM + 1);
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
    /// Of a viewer whose groups were not looked for yet; it counts among the others.
    pub const UNKNOWN: Self = Self([u8::MAX; KINDS]);
}

impl Watched {
    /// Stalling stands before watching.
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
/// Most groups of one kind that the viewers of a class are told apart by.
pub const MAX_NAMED: usize = 254;
/// Groups of a class in which nobody stalls are told at each so manieth look.
pub(super) const CALM_LOOKS: u8 = 4;
/// Room is made for so many at once.
const ROOM: usize = 4;

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
        /// Whoever comes, tells and goes: each kind of which a group is known sums up to what was told since it is, and
        /// is told by few names.
        #[test]
        fn each_kind_sums_up_to_all_that_was_told(
            acts in prop::collection::vec((0..600_u32, 0..4_usize, 0..5_000_u32, 0..5_000_u32, any::<bool>()), 1..700),
        ) {
            let agents = ["Chrome/1", "Firefox/2", "VLC/3", "nobody knows"];
            let (mut table, rules) = (GroupTable::default(), GroupRules::default());
            let (mut here, mut sums) = (Vec::new(), [(0_u64, 0_u64); 3]);
            for (network, agent, exposure, stalled, goes) in acts {
                let (is, left_out) = table.enter(&rules, &origin(network, agents[agent]));
                prop_assert!(left_out <= 1, "of networks alone there are more than {MAX_NAMED}");
                table.add(is, watched(exposure, stalled.min(exposure)));
                here.push(is);
                if goes {
                    here.drain(..here.len() / 2).for_each(|is| table.leave(is));
                }
            }
            let kept = here.len() as u32;
            for _ in 0..CALM_LOOKS {
                for view in table.take(kept) {
                    let (all, stalled) = &mut sums[view.group.kind() as usize];
                    *all += view.exposure.as_millis() as u64;
                    *stalled += view.stalled.as_millis() as u64;
                    prop_assert!(view.groups >= 1);
                }
            }
            prop_assert_eq!(table.take(kept).len(), 0);
            prop_assert_eq!(sums[GroupKind::Region as usize], (0, 0), "none is known");
            // Of players none may be known until the first that is.
            prop_assert!(sums[GroupKind::Player as usize] <= sums[GroupKind::Network as usize]);
        }
    }

    #[test]
    fn viewers_are_summed_by_each_of_their_groups() {
        let (mut table, rules) = (GroupTable::default(), GroupRules::default());
        for (network, agent, stalled) in [(1, "Chrome/1", 0), (1, "Firefox/2", 300), (2, "Chrome/1", 0)] {
            let (is, left_out) = table.enter(&rules, &origin(network, agent));
            assert_eq!(left_out, 0);
            table.add(is, watched(1_000, stalled));
        }
        let views = table.take(3);
        let of = |group: Group| views.iter().find(|view| view.group == group).expect("told");
        let first = of(Group::network([0, 0], [0, 0, 1, 9].into()));
        assert_eq!((first.exposure, first.stalled.as_millis(), first.stall_starts), (Duration::from_secs(2), 300, 1));
        assert_eq!(of(Group::Player("Chrome 1".into())).exposure, Duration::from_secs(2));
        assert_eq!(views.len(), 4, "no region is known, and nobody is without network and player: {views:?}");
        assert!(table.take(3).is_empty(), "nothing is told twice");
    }

    #[test]
    fn calm_groups_are_told_from_time_to_time_and_stalls_at_once() {
        let (mut table, rules) = (GroupTable::default(), GroupRules::default());
        let (is, _) = table.enter(&rules, &origin(1, ""));
        let mut look = |stalled| {
            table.add(is, watched(1_000, stalled));
            table.take(1).first().map_or(0, |view| view.exposure.as_secs())
        };
        let told: Vec<_> = [0, 0, 0, 0, 0, 9, 0].map(&mut look).to_vec();
        assert_eq!(told, [0, 0, 0, 4, 0, 2, 0]);
    }

    #[test]
    fn who_is_in_no_group_stays_in_the_sums() {
        let (mut table, rules) = (GroupTable::default(), GroupRules::default());
        let (stranger, _) = table.enter(&rules, &Origin::default());
        table.add(stranger, watched(1_000, 1));
        assert!(table.take(1).is_empty(), "no group is known at all");
        let (known, _) = table.enter(&rules, &origin(1, "curl"));
        table.add(stranger, watched(1_000, 500));
        table.add(known, watched(1_000, 0));
        let views = table.take(2);
        let others = views.iter().find(|view| view.group == Group::Others(GroupKind::Network)).expect("told");
        assert_eq!((others.groups, others.stalled.as_millis(), views.len()), (1, 500, 2));
    }

    #[test]
    fn a_full_table_counts_and_room_comes_with_those_who_leave() {
        let (mut table, rules) = (GroupTable::default(), GroupRules::default());
        let most = MAX_NAMED as u32;
        let first = table.enter(&rules, &origin(0, "")).0;
        assert!((1..most).all(|network| table.enter(&rules, &origin(network, "")).1 == 0));
        let (others, left_out) = table.enter(&rules, &origin(most, ""));
        assert_eq!((others, left_out), (Membership([0; KINDS]), 1));
        table.add(others, watched(1_000, 0));
        for place in 1..=MAX_NAMED as u8 {
            table.add(Membership([place, 0, 0]), watched(u32::from(place), u32::from(place)));
        }
        let views = table.take(most + 1);
        let others = views.last().expect("told");
        assert_eq!((views.len(), others.groups), (MAX_GROUPS + 1, most - MAX_GROUPS as u32 + 1));
        let exposure: u128 = views.iter().map(|view| view.exposure.as_millis()).sum();
        assert_eq!(exposure, 1_000 + (1..=MAX_NAMED as u128).sum::<u128>(), "every viewer is in one of them");
        table.leave(first);
        assert_eq!(table.enter(&rules, &origin(most, "")), (first, 0));
    }
}
