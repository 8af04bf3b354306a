//! The `[[sources]]` table of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use super::shown_url::shown;

/// A `[[sources]]` table as it is written.
#[derive(Clone, Default, Deserialize, JsonSchema)]
pub struct SourceSettings {
    /// What it is: one of the supported kinds, such as `srs` or `nginx-rtmp`.
    pub kind: String,
    /// Its name in labels, errors and `/v1/hooks/{name}`; unique. Without one: the kind.
    #[serde(default)]
    pub name: Option<String>,
    /// Base URL of its status interface. Without one: the kind's usual one on this host.
    #[serde(default)]
    pub url: Option<String>,
    /// How often it is asked, from `250ms` to `1h`. Without one: the kind's usual pace.
    #[serde(default, with = "crate::platform::duration::option")]
    #[schemars(schema_with = "crate::platform::duration::schema")]
    pub interval: Option<Duration>,
    /// How long one answer may take, from `10ms` to `30s`; `2s` without one.
    #[serde(default, with = "crate::platform::duration::option")]
    #[schemars(schema_with = "crate::platform::duration::schema")]
    pub timeout: Option<Duration>,
    /// TCP ports on which it serves viewers. Without any: the kind's usual ones.
    #[serde(default)]
    pub media_ports: Option<Vec<u16>>,
    /// User of HTTP Basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// File that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// File that holds a bearer token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Environment variable that holds a bearer token.
    #[serde(default)]
    pub token_env: Option<String>,
    /// What the kind itself knows; see its own reference.
    #[serde(flatten)]
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
}

impl fmt::Debug for SourceSettings {
    /// Without the values of the kind's own keys and of the URL's query, since they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url =
            self.url.as_deref().map(|url| Url::parse(url).map_or_else(|_| "(no URL)".to_owned(), |url| shown(&url)));
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

/// The keys that every source knows.
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
