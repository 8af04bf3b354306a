//! Groups of an audience (network, region, player), and exposure and stalls by group. Decides how a group is
//! identified: a network is a keyed hash, addresses are never kept.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Viewers whose group of this kind is unknown or found no room, so that the sums are those of the whole class.
    Others(GroupKind),
}

/// What viewers are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// The network they come from.
    Network,
    /// The region of that network.
    Region,
    /// The player they use.
    Player,
}

/// Exposure and stalls of one group of a class's viewers; all sums are over the same time as the
/// [`super::observation::PlayerView`] that contains it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupView {
    /// Which group.
    pub group: Group,
    /// How many groups it stands for: 1; for [`Group::Others`] an upper bound.
    pub groups: u32,
    /// Time in playing or stalled state, over viewers.
    pub exposure: Duration,
    /// Of it stalled.
    pub stalled: Duration,
    /// Stalls that began.
    pub stall_starts: u32,
}

/// Most groups kept of one leg. Beyond it one that stalls more replaces the one that stalls least.
pub(crate) const MAX_GROUPS: usize = 32;

impl Group {
    /// The network of an address (24 bits of IPv4, 48 of IPv6), hashed with the node's key: nobody can be identified by
    /// it.
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

    /// Whether it is one group, rather than the rest of its kind.
    pub(crate) const fn is_named(&self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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
