//! What is configured of the paths to other nodes: where their pings are answered, whom this node pings, how often.
//! Refuses what could not be judged or not be told apart, before anything is opened.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::duration;

/// The paths to other nodes, pinged over QUIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathSettings {
    /// UDP address where pings of other nodes are answered, such as `0.0.0.0:9481`; without one none are.
    pub listen: String,
    /// Who this node is for other nodes, and whom it believes.
    pub tls: NodeTlsSettings,
    /// How often each peer is pinged, from `20ms` to `100ms`.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub interval: Duration,
    /// The nodes that this one pings, at most 64: those that its classes come from or go to.
    pub peers: Vec<PeerSettings>,
}

/// Certificates between nodes; both ends show one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeTlsSettings {
    /// File with this node's certificate and those between it and the root, PEM; for client and server; read again at a
    /// reload.
    pub cert: PathBuf,
    /// File with its private key, PEM; read again at a reload.
    pub key: PathBuf,
    /// File with the certificates of the authority that signs nodes, PEM; nobody else is believed. Read again at a
    /// reload.
    pub ca: PathBuf,
}

/// A node that is pinged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PeerSettings {
    /// Its name in alerts and in the label `peer`.
    pub name: String,
    /// Host and UDP port where it answers, such as `origin-1.example.com:9481`.
    pub address: String,
    /// The name or address that its certificate must have; the host of `address` where empty.
    pub server_name: String,
}

/// Why these settings are wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not an address and port.
    #[error("paths.listen = \"{0}\" is not an address and port such as 0.0.0.0:9481")]
    Listen(String),
    /// A file is missing.
    #[error(
        "paths.tls needs cert, key and ca where paths.listen or paths.peers is set: nodes talk to nodes they know only"
    )]
    Tls,
    /// Too seldom to be judged, or too often.
    #[error("paths.interval must lie between 20ms and 100ms: 500 pings must come within a minute")]
    Interval,
    /// Too many.
    #[error("paths.peers has {0} tables, at most {MAX_PEERS} are pinged")]
    Many(usize),
    /// A name that tells nobody apart.
    #[error("paths.peers: the name \"{0}\" {1}")]
    Name(String, &'static str),
    /// Not a host and port.
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
    /// Checks them; `taken` are the names of sources and logs, since peers stand among these.
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
        if !(LEAST_INTERVAL..=MOST_INTERVAL).contains(&self.interval) {
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

    /// Whether anything is answered or pinged.
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
    /// One that is not configured, at this address.
    #[must_use]
    pub fn at(address: &str) -> Self {
        Self { name: address.to_owned(), address: address.to_owned(), server_name: String::new() }
    }

    /// Host (of IPv6 without brackets) and port; `None` where the address is none.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.or(Some(host).filter(|host| !host.contains(':')))?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty() && !host.contains(char::is_whitespace)).then_some((host, port))
    }

    /// What its certificate must be for.
    #[must_use]
    pub fn shown_as(&self) -> &str {
        let host = self.host_and_port().map_or("", |(host, _)| host);
        if self.server_name.is_empty() { host } else { &self.server_name }
    }
}

/// Most nodes that are pinged.
pub(super) const MAX_PEERS: usize = 64;
/// Longest name of a peer, in bytes.
const MAX_NAME: usize = 64;
/// Pings are no oftener than this.
pub(crate) const LEAST_INTERVAL: Duration = Duration::from_millis(20);
/// Nor seldomer: the judge needs 500 within a minute.
pub(crate) const MOST_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn used() -> PathSettings {
        let tls = NodeTlsSettings { cert: "c".into(), key: "k".into(), ca: "a".into() };
        let peer = PeerSettings { name: "origin-1".to_owned(), ..PeerSettings::at("origin-1.example.com:9481") };
        PathSettings { listen: "0.0.0.0:9481".to_owned(), tls, peers: vec![peer], ..PathSettings::default() }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
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
        assert_eq!(used().peers[0].shown_as(), "origin-1.example.com");
    }
}
