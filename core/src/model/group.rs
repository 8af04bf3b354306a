//! Which part of an audience suffers: watching and stalling by group (network, region, player). Decides which groups
//! are kept and whether few of them hold the fault; refuses addresses (a network is a keyed hash) and more groups than
//! [`MAX_GROUPS`] a leg: what is not kept stays in the sums, as others that cannot be named.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use crate::base::keyed_hash::sip_hash;

/// What some viewers have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The network they come from, as a keyed hash ([`Group::network`]).
    Network(u64),
    /// The region that the settings map their network to.
    Region(Arc<str>),
    /// The player they use, by name and version.
    Player(Arc<str>),
    /// Viewers whose group of this kind is not known or has no room: so that the sums are those of the whole class.
    Others(GroupKind),
}

/// What viewers are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// The network they come from.
    Network,
    /// The region of it.
    Region,
    /// The player they use.
    Player,
}

/// What one group of a class's viewers told; all sums are over the same time as the [`super::observation::PlayerView`]
/// that holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupView {
    /// Which group.
    pub group: Group,
    /// How many groups it may be: 1, and of others at most so many.
    pub groups: u32,
    /// Time in playing or stalled state.
    pub exposure: Duration,
    /// Of it stalled.
    pub stalled: Duration,
    /// Stalls that began.
    pub stall_starts: u32,
}

/// Most groups kept of one leg. Beyond it the one that stalls least makes room for one that stalls more.
pub(crate) const MAX_GROUPS: usize = 32;

/// What was told of a group is half forgotten after so long: a fault is located by what happens now.
pub(crate) const HALF_LIFE: Duration = Duration::from_secs(8);

impl Group {
    /// The network of an address (24 bits of IPv4, 48 of IPv6), hashed with the node's key: nobody can be found by it.
    #[must_use]
    pub fn network(key: [u64; 2], address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V4(address) => sip_hash(key, &[&address.octets()[..3]]),
            IpAddr::V6(address) => sip_hash(key, &[&address.octets()[..6]]),
        })
    }

    /// What it groups by.
    #[must_use]
    pub const fn kind(&self) -> GroupKind {
        match self {
            Self::Network(_) => GroupKind::Network,
            Self::Region(_) => GroupKind::Region,
            Self::Player(_) => GroupKind::Player,
            Self::Others(kind) => *kind,
        }
    }

    const fn is_named(&self) -> bool {
        !matches!(self, Self::Others(_))
    }
}

impl GroupKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Network, Self::Region, Self::Player];
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(hash) => write!(f, "network {:08x}", hash >> 32),
            Self::Region(name) => write!(f, "region {name}"),
            Self::Player(name) => write!(f, "player {name}"),
            Self::Others(_) => write!(f, "others"),
        }
    }
}

/// The groups of one leg, fading.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    kept: Vec<(Group, Tally)>,
    faded: Option<Timestamp>,
    left_out: u64,
}

/// Fading sums in seconds and numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Viewer-seconds in playing or stalled state.
    pub exposure: f32,
    /// Of them stalled.
    pub stalled: f32,
    /// Stalls that began.
    pub starts: f32,
    /// How many groups it may be.
    pub groups: f32,
}

impl Groups {
    /// Folds what was told of groups at `at`.
    pub fn take(&mut self, at: Timestamp, views: Vec<GroupView>) {
        self.fade(at);
        let mut left_out = [0; GroupKind::ALL.len()];
        for view in views {
            let told = Tally {
                exposure: view.exposure.as_secs_f32(),
                stalled: view.stalled.min(view.exposure).as_secs_f32(),
                starts: view.stall_starts as f32,
                groups: view.groups as f32,
            };
            if view.group.is_named() && self.find(&view.group).is_err() && self.named() >= MAX_GROUPS {
                let (group, told) = self.replace(view.group, told);
                left_out[group.kind() as usize] += 1;
                self.left_out += 1;
                self.add(Group::Others(group.kind()), Tally { groups: 0.0, ..told });
            } else {
                self.add(view.group, told);
            }
        }
        for (kind, left_out) in GroupKind::ALL.into_iter().zip(left_out).filter(|(_, left_out)| *left_out > 0) {
            if let Ok(index) = self.find(&Group::Others(kind)) {
                let groups = &mut self.kept[index].1.groups;
                *groups = groups.max(left_out as f32);
            }
        }
    }

    /// What is kept.
    pub fn iter(&self) -> impl Iterator<Item = (&Group, &Tally)> {
        self.kept.iter().map(|(group, tally)| (group, tally))
    }

    /// How often a group was left out for want of room; a total.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn find(&self, group: &Group) -> Result<usize, usize> {
        self.kept.binary_search_by(|(kept, _)| kept.cmp(group))
    }

    /// Those that have a name stand before the others.
    fn named(&self) -> usize {
        self.kept.partition_point(|(group, _)| group.is_named())
    }

    fn add(&mut self, group: Group, told: Tally) {
        match self.find(&group) {
            Ok(index) => self.kept[index].1.add(told),
            Err(index) => {
                self.kept.reserve_exact(4);
                self.kept.insert(index, (group, told));
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

    /// Makes room for what stalls more than the calmest one; gives what is left out.
    fn replace(&mut self, group: Group, told: Tally) -> (Group, Tally) {
        let named = &self.kept[..self.named()];
        let calmest = named.iter().enumerate().min_by(|a, b| a.1.1.stalled.total_cmp(&b.1.1.stalled));
        let Some(index) = calmest.filter(|(_, kept)| kept.1.stalled < told.stalled).map(|(index, _)| index) else {
            return (group, told);
        };
        let gone = self.kept.remove(index);
        self.add(group, told);
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

/// Few groups that hold a fault.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Concentration {
    /// The group that holds most of it.
    pub worst: Group,
    /// How many groups hold it, of how many.
    pub groups: (usize, usize),
    /// Whether there are fewer groups perhaps: some could not be told apart.
    pub at_most: bool,
    /// Their share of the stalled time.
    pub stalled_share: f64,
    /// Their share of the watching.
    pub exposure_share: f64,
}

/// Whether few of the groups hold what exceeds `limit`: without them the others keep it with room to spare, and chance
/// does not pick so well among all groups there may be. `tallies` are of one kind of group, summed; what has no name is
/// never accused.
#[must_use]
pub(crate) fn concentration(mut tallies: Vec<(Group, Tally)>, limit: f64) -> Option<Concentration> {
    let (mut all, mut of) = (Tally::default(), 0);
    for (_, tally) in &tallies {
        all.add(*tally);
        of += tally.groups.max(1.0).round() as usize;
    }
    let at_most = tallies.iter().any(|(group, tally)| !group.is_named() && tally.groups > 1.0);
    tallies.retain(|(group, _)| group.is_named());
    let excess = |tally: &Tally| f64::from(tally.stalled) - limit * f64::from(tally.exposure);
    tallies.sort_by(|a, b| excess(&b.1).total_cmp(&excess(&a.1)));
    let mut held = Tally::default();
    for (index, (_, tally)) in tallies.iter().enumerate() {
        held.add(*tally);
        let stalled_share = f64::from(held.stalled / all.stalled.max(f32::EPSILON));
        let exposure_share = f64::from(held.exposure / all.exposure.max(f32::EPSILON));
        if exposure_share > MOST_EXPOSURE {
            return None;
        }
        let rest = f64::from(all.stalled - held.stalled) / f64::from(all.exposure - held.exposure).max(0.001);
        if stalled_share >= LEAST_STALLED && rest < limit * REST_CLEAR {
            let chosen = index + 1;
            let stalls = f64::from(held.starts.max(held.stalled / LONG_STALL));
            let surprise = stalls * (stalled_share / exposure_share.max(1e-6)).ln();
            let ways = chosen as f64 * (of as f64 * std::f64::consts::E / chosen as f64).ln();
            let worst = &tallies[0].0;
            let found =
                || Concentration { worst: worst.clone(), groups: (chosen, of), at_most, stalled_share, exposure_share };
            return (surprise >= ways + SURPRISE).then(found);
        }
    }
    None
}

/// Few groups hold at least this share of the stalled time …
const LEAST_STALLED: f64 = 0.7;
/// … with at most this share of the watching.
const MOST_EXPOSURE: f64 = 0.6;
/// Without them the rest is this far under its limit.
const REST_CLEAR: f64 = 0.8;
/// A stall counts as another one after so many seconds.
const LONG_STALL: f32 = 2.0;
/// Log-likelihood beyond that of picking as many groups blindly.
const SURPRISE: f64 = 3.0;

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

    fn found(views: impl IntoIterator<Item = GroupView>) -> Option<Concentration> {
        let mut groups = Groups::default();
        groups.take(Timestamp::from_secs(1), views.into_iter().collect());
        concentration(groups.iter().map(|(group, tally)| (group.clone(), *tally)).collect(), 0.01)
    }

    #[test]
    fn one_network_of_ten_is_found_and_all_of_them_are_not() {
        let one = found((0..10).map(|network| view(network, if network == 3 { 4_000 } else { 20 })));
        let one = one.expect("one network holds it");
        assert_eq!((one.worst, one.groups), (Group::Network(3), (1, 10)));
        assert!(one.stalled_share > 0.9 && one.exposure_share < 0.11);
        assert_eq!(found((0..10).map(|network| view(network, 400))), None);
    }

    #[test]
    fn a_handful_of_stalls_that_fell_on_few_networks_is_chance() {
        assert_eq!(found((0..30).map(|network| view(network, if network < 4 { 200 } else { 0 }))), None);
    }

    #[test]
    fn groups_stay_few_and_those_that_stall_stay() {
        let mut groups = Groups::default();
        let calm = (0..100).map(|network| view(network, 0));
        groups.take(Timestamp::from_secs(1), calm.chain([view(1_000, 900)]).collect());
        assert!(groups.iter().count() == MAX_GROUPS + 1 && groups.left_out() == 69);
        let others = groups.iter().find(|(group, _)| **group == Group::Others(GroupKind::Network));
        let others = others.expect("what is left out stays in the sums").1;
        assert_eq!((others.groups, others.exposure), (69.0, 690.0));
        assert!(groups.iter().any(|(group, tally)| *group == Group::Network(1_000) && tally.stalled > 0.8));
        groups.take(Timestamp::from_secs(600), Vec::new());
        assert_eq!(groups.iter().count(), 0, "what was told long ago is forgotten");
    }

    #[test]
    fn few_of_many_that_cannot_be_named_are_chance_and_the_others_are_not_accused() {
        let others = |groups, stalled| GroupView {
            group: Group::Others(GroupKind::Network),
            groups,
            exposure: Duration::from_secs(5_000),
            stalled: Duration::from_millis(stalled),
            stall_starts: (stalled / 200) as u32,
        };
        let stalls = |count| (0..count).map(|network| GroupView { stall_starts: 1, ..view(network, 600) });
        assert!(found(stalls(8).chain([others(8, 0)])).is_some(), "eight of sixteen");
        assert_eq!(found(stalls(8).chain([others(5_000, 0)])), None, "eight of five thousand stall by chance");
        assert_eq!(found([view(1, 4_000), others(9, 60_000)]), None, "most of it is with the others");
    }

    #[test]
    fn neighbours_share_a_network_and_the_key_hides_it() {
        let network = |key, address: &str| Group::network([key, 2], address.parse().expect("an address"));
        assert_eq!(network(1, "203.0.113.7"), network(1, "203.0.113.200"));
        assert_eq!(network(1, "203.0.113.7"), network(1, "::ffff:203.0.113.9"));
        assert_ne!(network(1, "203.0.113.7"), network(1, "203.0.114.7"));
        assert_ne!(network(1, "203.0.113.7"), network(2, "203.0.113.7"));
        assert_eq!(network(1, "2001:db8:1::1"), network(1, "2001:db8:1:9::1"));
    }
}
