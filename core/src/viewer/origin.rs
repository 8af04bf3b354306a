//! Where a viewer's words come from, as far as that tells which groups it is in. Decides whose address counts behind
//! proxies; keeps none: a network leaves here as a keyed hash, and what is no address, region or known player is in no
//! group.

use std::net::IpAddr;

use ipnet::IpNet;

use super::player_name::PlayerName;
use crate::model::Group;

/// How viewers are told apart by network.
#[derive(Clone, Debug, Default)]
pub struct GroupRules {
    /// The key of the networks' hashes.
    pub key: [u64; 2],
    /// Proxies whose word on the client's address is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// What is known of where a viewer's words come from; borrowed, looked at once for each viewer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// Its address.
    pub address: Address<'a>,
    /// Its region, as the log or the settings name it; empty where nobody does.
    pub region: &'a [u8],
    /// What it plays with.
    pub player: PlayerName<'a>,
}

/// An address on its way to be hashed.
#[derive(Clone, Copy, Debug, Default)]
pub enum Address<'a> {
    /// Nobody told.
    #[default]
    Unknown,
    /// It is settled.
    Known(IpAddr),
    /// As a log line tells it: the connection's other end, and what that says of those before it (`X-Forwarded-For`).
    Told {
        /// Other end of the connection.
        peer: &'a [u8],
        /// Addresses parted by commas, the last one told by the peer.
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
            Address::Told { peer, forwarded } => client(ip(peer)?, forwarded, &rules.trusted_proxies)?,
        };
        Some(Group::network(rules.key, address))
    }

    /// The region: short printable text.
    #[must_use]
    pub fn region(&self) -> Option<&'a str> {
        let text = std::str::from_utf8(self.region).ok()?.trim();
        let is_good = |c: char| !c.is_control() && !matches!(c, '\\' | '"');
        (!text.is_empty() && text.len() <= MAX_REGION && text.chars().all(is_good)).then_some(text)
    }
}

/// The peer, or where that is a trusted proxy the last one of `forwarded` that is none. `None` where only proxies are
/// known.
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

/// Longest name of a region in bytes.
pub(super) const MAX_REGION: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(peer: &str, forwarded: &str) -> Option<Group> {
        let trusted_proxies = ["10.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network")).to_vec();
        let address = Address::Told { peer: peer.as_bytes(), forwarded: forwarded.as_bytes() };
        Origin { address, ..Origin::default() }.network(&GroupRules { key: [1, 2], trusted_proxies })
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_word() {
        let of = |address: &str| Some(Group::network([1, 2], address.parse().expect("an address")));
        assert_eq!(network("192.0.2.1", "198.51.100.7"), of("192.0.2.1"), "a stranger says what it likes");
        assert_eq!(network("10.0.0.1", "198.51.100.7"), of("198.51.100.7"));
        assert_eq!(network("10.0.0.1", "6.6.6.6, 198.51.100.7"), of("198.51.100.7"), "the rest is the client's word");
        assert_eq!(network("::ffff:10.0.0.1", "198.51.100.7, 10.1.1.1"), of("198.51.100.7"));
        assert_eq!((network("10.0.0.1", "unknown"), network("10.0.0.1", "")), (None, None), "a proxy is no viewer");
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
