//! Which part of an audience suffers: watching and stalling by group (network, region, player). Decides which groups
//! are kept and whether few of them hold the fault; refuses addresses (a network is a keyed hash) and more groups than
//! [`MAX_GROUPS`] a leg: what is not kept stays in the sums, as others that cannot be named.

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
