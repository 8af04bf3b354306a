//! The origin of a viewer's reports: address, region and player, by which it is assigned to groups. Decides whose
//! address counts behind proxies. No address is kept: a network leaves here as a keyed hash. What is no address, region
//! or known player belongs to no group.

use std::net::IpAddr;

use ipnet::IpNet;

use super::player_name::PlayerName;
use crate::model::Group;

/// How viewers are grouped by network.
#[derive(Clone, Debug, Default)]
pub struct GroupRules {
    /// The key of the networks' hashes.
    pub key: [u64; 2],
    /// Proxies whose report of the client's address is trusted.
    pub trusted_proxies: Vec<IpNet>,
}

/// The origin of a viewer's reports; borrowed, and read once per viewer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// Its address.
    pub address: Address<'a>,
    /// Its region, as the log or the settings name it; empty where neither does.
    pub region: &'a [u8],
    /// Its player.
    pub player: PlayerName<'a>,
}

/// The address of a viewer.
#[derive(Clone, Copy, Debug, Default)]
pub enum Address<'a> {
    /// Not reported.
    #[default]
    Unknown,
    /// Already determined.
    Known(IpAddr),
    /// As a log line contains it.
    Logged {
        /// Remote address of the connection.
        peer: &'a [u8],
        /// Addresses separated by commas, the last one reported by the peer (`X-Forwarded-For`).
        forwarded: &'a [u8],
    },
}

impl<'a> Origin<'a> {
    /// The network, where the address can be read.
    #[must_use]
    pub fn network(&self, rules: &GroupRules) -> Option<Group> {
        let address = match self.address {
            Address::Unknown => return None,
            Address::Known(address) => address,
            Address::Logged { peer, forwarded } => client(ip(peer)?, forwarded, &rules.trusted_proxies)?,
        };
        Some(Group::network(rules.key, address))
    }

    /// The region, if it is short printable text.
    #[must_use]
    pub fn region(&self) -> Option<&'a str> {
        let text = std::str::from_utf8(self.region).ok()?.trim();
        let is_good = |c: char| !c.is_control() && !matches!(c, '\\' | '"');
        (!text.is_empty() && text.len() <= MAX_REGION && text.chars().all(is_good)).then_some(text)
    }
}

/// The peer, or where that is a trusted proxy the last address of `forwarded` that is not one. `None` where all are
/// proxies.
fn client(peer: IpAddr, forwarded: &[u8], trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
    let mut client = peer;
    for hop in forwarded.rsplit(|byte| *byte == b',') {
        let Some(address) = Some(hop).filter(|_| is_trusted(client)).and_then(ip) else {
            break;
        };
        client = address;
    }
    (!is_trusted(client)).then_some(client)
}

fn ip(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Longest region in bytes.
pub(super) const MAX_REGION: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(peer: &str, forwarded: &str) -> Option<Group> {
        let trusted_proxies = ["10.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network")).to_vec();
        let address = Address::Logged { peer: peer.as_bytes(), forwarded: forwarded.as_bytes() };
        Origin { address, ..Origin::default() }.network(&GroupRules { key: [1, 2], trusted_proxies })
    }

    #[test]
    fn only_the_last_address_of_a_trusted_proxy_counts() {
        let of = |address: &str| Some(Group::network([1, 2], address.parse().expect("an address")));
        assert_eq!(network("192.0.2.1", "198.51.100.7"), of("192.0.2.1"), "an untrusted sender may claim anything");
        assert_eq!(network("10.0.0.1", "198.51.100.7"), of("198.51.100.7"));
        assert_eq!(
            network("10.0.0.1", "6.6.6.6, 198.51.100.7"),
            of("198.51.100.7"),
            "the rest is what the client claims"
        );
        assert_eq!(network("::ffff:10.0.0.1", "198.51.100.7, 10.1.1.1"), of("198.51.100.7"));
        assert_eq!((network("10.0.0.1", "unknown"), network("10.0.0.1", "")), (None, None), "a proxy is not a viewer");
        assert_eq!((network("unix:", "1.1.1.1"), network("", "")), (None, None));
        let known = Origin { address: Address::Known([198, 51, 100, 9].into()), ..Origin::default() };
        assert_eq!(known.network(&GroupRules { key: [1, 2], ..GroupRules::default() }), of("198.51.100.7"));
        assert_eq!(Origin::default().network(&GroupRules::default()), None);
    }

    #[test]
    fn a_region_is_short_printable_text() {
        let region = |text: &'static str| Origin { region: text.as_bytes(), ..Origin::default() }.region();
        assert_eq!((region(" cn-east "), region("北京")), (Some("cn-east"), Some("北京")));
        for wrong in ["", " ", "a\nb", "a\\x22", &"r".repeat(MAX_REGION + 1)] {
            assert_eq!(Origin { region: wrong.as_bytes(), ..Origin::default() }.region(), None, "{wrong}");
        }
    }
}
