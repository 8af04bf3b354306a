//! `[paths]` of the configuration: where pings are answered, which nodes are pinged, how often.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::duration;

/// Network paths to other nodes, measured by pings over QUIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathSettings {
    /// UDP address where pings of other nodes are answered, such as `0.0.0.0:9481`; empty answers none.
    pub listen: String,
    /// The certificate that this node presents to others, and the authority that it trusts.
    pub tls: NodeTlsSettings,
    /// How often each peer is pinged, from `20ms` to `100ms`.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub interval: Duration,
    /// The nodes to ping, at most 64: those that this node's classes come from or go to.
    pub peers: Vec<PeerSettings>,
}

/// Certificates between nodes; both ends present one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeTlsSettings {
    /// PEM file with this node's certificate, for client and server, and its intermediate certificates; read again at a
    /// reload.
    pub cert: PathBuf,
    /// PEM file with its private key; read again at a reload.
    pub key: PathBuf,
    /// PEM file with the certificates of the authority that signs nodes; no other is trusted. Read again at a reload.
    pub ca: PathBuf,
}

/// A node to ping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PeerSettings {
    /// The node's name in alerts and in the label `peer`.
    pub name: String,
    /// Host and UDP port where it answers pings, such as `origin-1.example.com:9481`.
    pub address: String,
    /// The name or address that its certificate must be valid for; the host of `address` where empty.
    pub server_name: String,
}

/// Why the settings are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not an address and port.
    #[error("paths.listen = \"{0}\" is not an address and port such as 0.0.0.0:9481")]
    Listen(String),
    /// `paths.tls` lacks a file.
    #[error(
        "paths.tls needs cert, key and ca where paths.listen or paths.peers is set: nodes only connect to known nodes"
    )]
    Tls,
    /// The interval is out of range.
    #[error("paths.interval must lie between 20ms and 100ms: 500 pings must fit into a minute")]
    Interval,
    /// Too many peers.
    #[error("paths.peers has {0} tables, at most {MAX_PEERS} are pinged")]
    Many(usize),
    /// A name that is invalid or not unique: the name, and why.
    #[error("paths.peers: the name \"{0}\" {1}")]
    Name(String, &'static str),
    /// Not a host and port: the peer, and its address.
    #[error("paths.peers: \"{1}\" of {0} is not a host and port such as origin-1.example.com:9481")]
    Address(String, String),
}

impl Default for PathSettings {
    fn default() -> Self {
        let (listen, tls, peers) = (String::new(), NodeTlsSettings::default(), Vec::new());
        Self { listen, tls, interval: Duration::from_millis(50), peers }
    }
}

impl PathSettings {
    /// Checks the settings; `taken` are the names of sources and logs, which peers must not repeat.
    ///
    /// # Errors
    /// The first [`PathError`].
    pub fn check<'a>(&self, taken: impl IntoIterator<Item = &'a str>) -> Result<(), PathError> {
        if !self.listen.is_empty() && self.listen.parse::<SocketAddr>().is_err() {
            return Err(PathError::Listen(self.listen.clone()));
        }
        let files = [&self.tls.cert, &self.tls.key, &self.tls.ca];
        if self.is_used() && files.iter().any(|file| file.as_os_str().is_empty()) {
            return Err(PathError::Tls);
        }
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&self.interval) {
            return Err(PathError::Interval);
        }
        if self.peers.len() > MAX_PEERS {
            return Err(PathError::Many(self.peers.len()));
        }
        let mut names: BTreeSet<&str> = taken.into_iter().collect();
        for peer in &self.peers {
            let wrong = |why| Err(PathError::Name(peer.name.clone(), why));
            if peer.name.is_empty() || peer.name.len() > MAX_NAME || peer.name.chars().any(char::is_control) {
                return wrong("must have 1 to 64 bytes and no control characters");
            }
            if !names.insert(&peer.name) {
                return wrong("is taken by another peer, a source or a log");
            }
            if peer.host_and_port().is_none() {
                return Err(PathError::Address(peer.name.clone(), peer.address.clone()));
            }
        }
        Ok(())
    }

    /// Whether pings are answered or sent.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.listen.is_empty() || !self.peers.is_empty()
    }

    /// The peer of this name.
    #[must_use]
    pub fn peer(&self, name: &str) -> Option<&PeerSettings> {
        self.peers.iter().find(|peer| peer.name == name)
    }
}

impl PeerSettings {
    /// A peer that is not configured, named by its address.
    #[must_use]
    pub fn at(address: &str) -> Self {
        Self { name: address.to_owned(), address: address.to_owned(), server_name: String::new() }
    }

    /// Host (IPv6 without brackets) and port; `None` where the address is invalid.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.or(Some(host).filter(|host| !host.contains(':')))?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty() && !host.contains(char::is_whitespace)).then_some((host, port))
    }

    /// The name that its certificate must be valid for.
    #[must_use]
    pub fn certificate_name(&self) -> &str {
        let host = self.host_and_port().map_or("", |(host, _)| host);
        if self.server_name.is_empty() { host } else { &self.server_name }
    }
}

/// Most peers.
pub(super) const MAX_PEERS: usize = 64;
/// Longest name, in bytes.
const MAX_NAME: usize = 64;
/// Shortest interval between pings.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// Longest interval between pings: alert evaluation needs 500 in a minute.
pub(crate) const MAX_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn used() -> PathSettings {
        let tls = NodeTlsSettings { cert: "c".into(), key: "k".into(), ca: "a".into() };
        let peer = PeerSettings { name: "origin-1".to_owned(), ..PeerSettings::at("origin-1.example.com:9481") };
        PathSettings { listen: "0.0.0.0:9481".to_owned(), tls, peers: vec![peer], ..PathSettings::default() }
    }

    #[test]
    fn invalid_settings_are_named() {
        assert_eq!(PathSettings::default().check([]), Ok(()));
        assert_eq!(used().check(["srs"]), Ok(()));
        let check = |change: fn(&mut PathSettings)| {
            let mut settings = used();
            change(&mut settings);
            settings.check(["srs"]).expect_err("refused").to_string()
        };
        assert!(check(|all| all.listen = "9481".to_owned()).contains("0.0.0.0:9481"));
        assert!(check(|all| all.tls.ca = PathBuf::new()).contains("paths.tls needs"));
        assert!(check(|all| all.interval = Duration::from_secs(1)).contains("20ms and 100ms"));
        assert!(check(|all| all.peers[0].name = "srs".to_owned()).contains("is taken"));
        assert!(check(|all| all.peers.push(all.peers[0].clone())).contains("is taken"));
        assert!(check(|all| all.peers = vec![all.peers[0].clone(); MAX_PEERS + 1]).contains("65 tables"));
        for address in ["origin-1", "origin-1:", ":9481", "fe80::1:9481", "a b:1", "h:0"] {
            assert_eq!(PeerSettings::at(address).host_and_port(), None, "{address}");
        }
        assert_eq!(PeerSettings::at("[fe80::1]:9481").host_and_port(), Some(("fe80::1", 9481)));
        assert_eq!(used().peers[0].certificate_name(), "origin-1.example.com");
    }
}
