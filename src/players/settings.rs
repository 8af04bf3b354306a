//! The `[ingest]`, `[cmcd]` and `[beacon]` tables: where players' endpoints listen, who may post and how often. Refuses
//! networks, origins and certificates that cannot be read, before anything listens.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::cidr::{NetworkError, Networks};
use crate::platform::tls::TlsSettings;

/// Reports of players themselves.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BeaconSettings {
    /// File with the key (at least 32 bytes) that signs the tokens of classes; without one `/v1/beacon` is closed.
    pub key_file: Option<PathBuf>,
}

/// The endpoints for players: `/v1/cmcd` and `/v1/beacon`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// A further address for these endpoints alone, such as `0.0.0.0:9443`; without one they are served at the main
    /// address only.
    pub listen: String,
    /// Certificate and key of that address; without them it serves plain HTTP.
    pub tls: TlsSettings,
    /// Web origins whose pages may post, such as `https://school.example`; `*` allows all. This does not replace the
    /// token, which gives the right to report.
    pub origins: Vec<String>,
    /// Requests per second from one source address (IPv6: one /64) in the long run; a school behind one address is one
    /// source.
    pub rate_per_second: u32,
    /// Requests that one source address may send at once.
    pub burst: u32,
    /// Most open connections of players, to both addresses together; further ones are closed at once and counted.
    pub max_connections: usize,
    /// Proxies whose `X-Forwarded-For` is trusted to name the source address: addresses or networks.
    pub trusted_proxies: Vec<String>,
}

/// CMCD v2 event reports of players, posted to `/v1/cmcd`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CmcdSettings {
    /// Name of the `[[logs]]` table with the requests of the same viewers; the first table without it.
    pub log: String,
    /// Addresses or networks that may post without a token, such as that of the node's own nginx: `["127.0.0.1"]`.
    pub without_token_from: Vec<String>,
}

/// Why these settings are wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Not an address and port.
    #[error("ingest.listen = \"{0}\" is not an address and port such as 0.0.0.0:9443")]
    Listen(String),
    /// Only one of the two.
    #[error("ingest.tls needs both cert and key")]
    Tls,
    /// Neither an address nor a network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Not an origin.
    #[error("ingest.origins: \"{0}\" is not an origin such as https://school.example (no path, no slash at its end)")]
    Origin(String),
    /// A bound that would refuse everything.
    #[error("ingest.{0} must be at least 1")]
    Zero(&'static str),
    /// No such log.
    #[error("cmcd.log = \"{0}\" names none of [[logs]]")]
    Log(String),
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            listen: String::new(),
            tls: TlsSettings::default(),
            origins: vec!["*".to_owned()],
            rate_per_second: 200,
            burst: 1_000,
            max_connections: 4_096,
            trusted_proxies: vec!["127.0.0.1".to_owned(), "::1".to_owned()],
        }
    }
}

impl IngestSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`IngestError`].
    pub fn check(&self) -> Result<(), IngestError> {
        if !self.listen.is_empty() && self.listen.parse::<SocketAddr>().is_err() {
            return Err(IngestError::Listen(self.listen.clone()));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(IngestError::Tls);
        }
        if let Some(origin) = self.origins.iter().find(|origin| !is_origin(origin)) {
            return Err(IngestError::Origin(origin.clone()));
        }
        let least = [("rate_per_second", self.rate_per_second), ("burst", self.burst)];
        if let Some((key, _)) = least.into_iter().find(|(_, value)| *value == 0) {
            return Err(IngestError::Zero(key));
        }
        if self.max_connections == 0 {
            return Err(IngestError::Zero("max_connections"));
        }
        self.proxies()?;
        Ok(())
    }

    /// The settings without the files that a reload reads again.
    #[must_use]
    pub fn without_files(&self) -> Self {
        let has_tls = self.tls.cert.is_some().then(PathBuf::new);
        Self { tls: TlsSettings { cert: has_tls.clone(), key: has_tls }, ..self.clone() }
    }

    /// The trusted proxies.
    ///
    /// # Errors
    /// Neither an address nor a network.
    pub fn proxies(&self) -> Result<Networks, NetworkError> {
        Networks::read("ingest.trusted_proxies", &self.trusted_proxies)
    }
}

impl CmcdSettings {
    /// Checks the settings against the names of all logs.
    ///
    /// # Errors
    /// The first [`IngestError`].
    pub fn check<'a>(&self, mut logs: impl Iterator<Item = &'a str>) -> Result<(), IngestError> {
        if !self.log.is_empty() && !logs.any(|name| name == self.log) {
            return Err(IngestError::Log(self.log.clone()));
        }
        self.trusted()?;
        Ok(())
    }

    /// Addresses that need no token.
    ///
    /// # Errors
    /// Neither an address nor a network.
    pub fn trusted(&self) -> Result<Networks, NetworkError> {
        Networks::read("cmcd.without_token_from", &self.without_token_from)
    }
}

fn is_origin(text: &str) -> bool {
    let host = text.split_once("://").map(|(_, host)| host);
    text == "*" || host.is_some_and(|host| !host.is_empty() && host.bytes().all(|c| c.is_ascii_graphic() && c != b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_setting_and_what_to_do() {
        let wrong = |text: &str| {
            toml::from_str::<IngestSettings>(text).expect("toml").check().expect_err("refused").to_string()
        };
        for (text, message) in [
            ("listen = 'here'", "0.0.0.0:9443"),
            ("tls.cert = 'x'", "both cert and key"),
            ("origins = ['https://a/']", "\"https://a/\" is not an origin"),
            ("origins = ['a.example']", "is not an origin"),
            ("trusted_proxies = ['nginx']", "ingest.trusted_proxies: \"nginx\" is neither"),
            ("burst = 0", "ingest.burst must be at least 1"),
        ] {
            assert!(wrong(text).contains(message), "{text}: {}", wrong(text));
        }
        assert_eq!(IngestSettings::default().check(), Ok(()));
        let cmcd = CmcdSettings { log: "cdn".to_owned(), ..CmcdSettings::default() };
        assert_eq!(cmcd.check(["edge"].into_iter()), Err(IngestError::Log("cdn".to_owned())));
        assert_eq!(cmcd.check(["edge", "cdn"].into_iter()), Ok(()));
    }
}
