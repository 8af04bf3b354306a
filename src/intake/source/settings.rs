//! The `[[sources]]` table of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use super::shown_url::shown;

/// A `[[sources]]` table as configured.
#[derive(Clone, Default, Deserialize, JsonSchema)]
pub struct SourceSettings {
    /// Kind of server: one of the supported kinds, such as `srs` or `nginx-rtmp`.
    pub kind: String,
    /// Unique name in labels, errors and `/v1/hooks/{name}`; the default is the kind.
    #[serde(default)]
    pub name: Option<String>,
    /// Base URL of the status interface; the default is the kind's usual URL on this host.
    #[serde(default)]
    pub url: Option<String>,
    /// Poll interval, from `250ms` to `1h`; the default depends on the kind.
    #[serde(default, with = "crate::platform::duration::option")]
    #[schemars(schema_with = "crate::platform::duration::schema")]
    pub interval: Option<Duration>,
    /// Time limit of one response, from `10ms` to `30s`; the default is `2s`.
    #[serde(default, with = "crate::platform::duration::option")]
    #[schemars(schema_with = "crate::platform::duration::schema")]
    pub timeout: Option<Duration>,
    /// TCP ports on which the server serves viewers; the default is the kind's usual ports.
    #[serde(default)]
    pub media_ports: Option<Vec<u16>>,
    /// User name for HTTP Basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Environment variable with the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// File with a bearer token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Environment variable with a bearer token.
    #[serde(default)]
    pub token_env: Option<String>,
    /// Further keys of the kind; see its own reference.
    #[serde(flatten)]
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
}

impl fmt::Debug for SourceSettings {
    /// Omits the values of the kind's own keys and the query of the URL, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url =
            self.url.as_deref().map(|url| Url::parse(url).map_or_else(|_| "(not a URL)".to_owned(), |url| shown(&url)));
        f.debug_struct("SourceSettings")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("url", &url)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("own_keys", &self.settings.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The keys that every source has.
pub(super) const COMMON_KEYS: [&str; 11] = [
    "kind",
    "name",
    "url",
    "interval",
    "timeout",
    "media_ports",
    "username",
    "password_file",
    "password_env",
    "token_file",
    "token_env",
];
