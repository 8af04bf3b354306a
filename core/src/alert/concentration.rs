//! Whether few groups of an audience hold a fault. Decides by what the other groups show and by the odds of picking
//! those few by chance; groups without a name are never blamed.

use crate::base::SmallMap;
use crate::model::{Group, GroupKind};
use crate::session::{Live, Tally};

/// Few groups that hold a fault.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Concentration {
    /// The group that holds most of it.
    pub worst: Group,
    /// How many groups hold it, of how many.
    pub groups: (usize, usize),
    /// Whether the number of groups is an upper bound, because some could not be distinguished.
    pub at_most: bool,
    /// Their share of the stalled time, 0 to 1.
    pub stalled_share: f64,
    /// Their share of the exposure time, 0 to 1.
    pub exposure_share: f64,
}

/// Whether few of the groups hold what exceeds `limit`: without them the others stay clearly under it, and chance is
/// unlikely to pick those few among all groups. `tallies` are of one kind of group, summed over legs.
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
            let log_likelihood = stalls * (stalled_share / exposure_share.max(1e-6)).ln();
            let ways = chosen as f64 * (of as f64 * std::f64::consts::E / chosen as f64).ln();
            let worst = &tallies[0].0;
            let found =
                || Concentration { worst: worst.clone(), groups: (chosen, of), at_most, stalled_share, exposure_share };
            return (log_likelihood >= ways + MIN_LOG_LIKELIHOOD).then(found);
        }
    }
    None
}

/// The groups of one kind, summed over all legs.
pub(super) fn tallies(live: &Live, kind: GroupKind) -> Vec<(Group, Tally)> {
    let mut sums: SmallMap<Group, Tally> = SmallMap::new();
    for groups in live.legs().filter_map(|(_, leg)| leg.groups()) {
        for (group, tally) in groups.iter().filter(|(group, _)| group.kind() == kind) {
            sums.at(group.clone(), Tally::default).add(*tally);
        }
    }
    sums.into_iter().collect()
}

/// Few groups hold at least this share of the stalled time …
const LEAST_STALLED: f64 = 0.7;
/// … with at most this share of the exposure time.
const MOST_EXPOSURE: f64 = 0.6;
/// Without them the ratio is under this share of its limit.
const REST_CLEAR: f64 = 0.8;
/// A long stall counts once per this number of seconds.
const LONG_STALL: f32 = 2.0;
/// Log-likelihood required beyond that of picking as many groups at random.
const MIN_LOG_LIKELIHOOD: f64 = 3.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{GroupView, Timestamp};
    use crate::session::Groups;

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
    fn one_network_of_ten_is_found_but_not_all_ten() {
        let one = found((0..10).map(|network| view(network, if network == 3 { 4_000 } else { 20 })));
        let one = one.expect("one network holds it");
        assert_eq!((one.worst, one.groups), (Group::Network(3), (1, 10)));
        assert!(one.stalled_share > 0.9 && one.exposure_share < 0.11);
        assert_eq!(found((0..10).map(|network| view(network, 400))), None);
    }

    #[test]
    fn a_handful_of_stalls_on_few_networks_is_chance() {
        assert_eq!(found((0..30).map(|network| view(network, if network < 4 { 200 } else { 0 }))), None);
    }

    #[test]
    fn few_of_many_unnamed_groups_are_chance_and_unnamed_ones_are_not_blamed() {
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
        assert_eq!(found([view(1, 4_000), others(9, 60_000)]), None, "the unnamed groups hold most of it");
    }
}
