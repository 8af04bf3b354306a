//! The `[otlp]` section: where to send and how. Decides which URL each signal goes to; refuses an endpoint that is not a URL
//! and never shows a header's value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::Signal;
use crate::duration_text;

/// OTLP export. Off until an endpoint is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpSettings {
    /// The collector, `http://host:4317` for gRPC or `http://host:4318` for HTTP; `https://` for TLS. Under HTTP the
    /// signals' paths (`/v1/traces`, ...) are appended. Environment: `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: Option<String>,
    /// How to speak to it. Environment: `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub protocol: Protocol,
    /// Headers of every request, for instance an authorization; values are never logged. Environment:
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: BTreeMap<String, Secret>,
    /// Compression of requests. Environment: `OTEL_EXPORTER_OTLP_COMPRESSION`.
    pub compression: Compression,
    /// Time until an unanswered request is given up and tried again. Environment: `OTEL_EXPORTER_OTLP_TIMEOUT`
    /// (milliseconds there).
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_text::schema")]
    pub timeout: Duration,
    /// PEM file of the authorities to trust instead of the system's. Environment: `OTEL_EXPORTER_OTLP_CERTIFICATE`.
    pub ca_file: Option<PathBuf>,
    /// Time between two exports of metrics.
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_text::schema")]
    pub metrics_interval: Duration,
    /// Spans of classes.
    pub traces: SignalSettings,
    /// Metrics, beside the Prometheus page.
    pub metrics: SignalSettings,
    /// Log events: each sample as it is cut, incidents as they begin and end.
    pub logs: SignalSettings,
    /// More attributes of the resource. Environment: `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`.
    pub resource: BTreeMap<String, String>,
}

impl OtlpSettings {
    /// Whether any signal has somewhere to go.
    #[must_use]
    pub fn enabled(&self) -> bool {
        Signal::ALL.iter().any(|signal| self.sends(*signal))
    }

    /// Whether `signal` is on and has somewhere to go.
    #[must_use]
    pub fn sends(&self, signal: Signal) -> bool {
        let own = self.of(signal);
        own.enabled && (own.endpoint.is_some() || self.endpoint.is_some())
    }

    /// The settings of one signal.
    #[must_use]
    pub fn of(&self, signal: Signal) -> &SignalSettings {
        match signal {
            Signal::Traces => &self.traces,
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
        }
    }

    /// The settings of one signal, to change.
    pub(super) fn of_mut(&mut self, signal: Signal) -> &mut SignalSettings {
        match signal {
            Signal::Traces => &mut self.traces,
            Signal::Metrics => &mut self.metrics,
            Signal::Logs => &mut self.logs,
        }
    }

    /// The URL that `signal` is sent to, `None` where it is off. A signal's own endpoint is used as it is; the shared one gets
    /// the signal's path under HTTP (OpenTelemetry protocol exporter specification, endpoint URLs for OTLP/HTTP).
    ///
    /// # Errors
    /// [`SettingsError::Endpoint`] where it is not an absolute `http` or `https` URL.
    pub fn url(&self, signal: Signal) -> Result<Option<reqwest::Url>, SettingsError> {
        if !self.sends(signal) {
            return Ok(None);
        }
        let (text, path) = match (&self.of(signal).endpoint, &self.endpoint, self.protocol) {
            (Some(own), _, _) => (own, ""),
            (None, Some(base), Protocol::HttpProtobuf) => (base, signal.http_path()),
            (None, Some(base), Protocol::Grpc) => (base, ""),
            (None, None, _) => return Ok(None),
        };
        let refuse = |why: String| SettingsError::Endpoint { signal: signal.as_str(), why };
        let mut url: reqwest::Url =
            text.trim().parse().map_err(|error| refuse(format!("{error}; write it like http://collector:4317")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(refuse("it must begin with http:// or https:// and name a host".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("credentials belong into otlp.headers, not into the url".to_owned()));
        }
        if !path.is_empty() {
            let joined = format!("{}{path}", url.path().trim_end_matches('/'));
            url.set_path(&joined);
        }
        Ok(Some(url))
    }

    /// Checks what types cannot: URLs, durations, header names and values.
    ///
    /// # Errors
    /// [`SettingsError`] of the first thing that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        Signal::ALL.iter().try_for_each(|signal| self.url(*signal).map(drop))?;
        self.timeout()?;
        self.metrics_interval()?;
        self.headers.iter().try_for_each(|(name, value)| {
            let good = reqwest::header::HeaderName::try_from(name).is_ok()
                && reqwest::header::HeaderValue::try_from(value.expose()).is_ok()
                && !RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name));
            good.then_some(()).ok_or_else(|| SettingsError::Header(name.clone()))
        })
    }

    /// How long a request may take.
    ///
    /// # Errors
    /// [`SettingsError::Duration`] where it is not between 1 ms and an hour.
    pub fn timeout(&self) -> Result<Duration, SettingsError> {
        between("timeout", self.timeout, SHORTEST_TIMEOUT)
    }

    /// Time between two exports of metrics.
    ///
    /// # Errors
    /// [`SettingsError::Duration`] where it is not between a second and an hour.
    pub fn metrics_interval(&self) -> Result<Duration, SettingsError> {
        between("metrics_interval", self.metrics_interval, SHORTEST_INTERVAL)
    }
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::default(),
            headers: BTreeMap::new(),
            compression: Compression::default(),
            timeout: Duration::from_secs(10),
            ca_file: None,
            metrics_interval: Duration::from_secs(15),
            traces: SignalSettings::default(),
            metrics: SignalSettings::default(),
            logs: SignalSettings::default(),
            resource: BTreeMap::new(),
        }
    }
}

/// One signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignalSettings {
    /// Whether it is sent.
    pub enabled: bool,
    /// Its own collector, used as it is: under HTTP with its path. Environment: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and
    /// so on.
    pub endpoint: Option<String>,
}

impl Default for SignalSettings {
    fn default() -> Self {
        Self { enabled: true, endpoint: None }
    }
}

/// The transport of OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// OTLP/gRPC, usually port 4317.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP/HTTP with binary protobuf, usually port 4318.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952; every OTLP server must take it.
    #[default]
    Gzip,
    /// As it is.
    None,
}

/// A text that is sent but never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl Serialize for Secret {
    /// Hidden here too: settings are printed by people who debug.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[hidden]")
    }
}

/// Why the settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// An endpoint that is no URL.
    #[error("reading the otlp endpoint of {signal}: {why}")]
    Endpoint {
        /// The signal.
        signal: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A time out of bounds.
    #[error("reading otlp.{0}: it must lie between {1} and 1h")]
    Duration(&'static str, String),
    /// A header that cannot be sent, by its name.
    #[error("reading otlp.headers: {0:?} is no header that can be set, or its value is not printable ascii")]
    Header(String),
}

fn between(name: &'static str, value: Duration, least: Duration) -> Result<Duration, SettingsError> {
    let good = (least..=LONGEST).contains(&value);
    good.then_some(value).ok_or_else(|| SettingsError::Duration(name, duration_text::format(least)))
}

const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(1);

/// Headers that the exporter sets itself.
const RESERVED: [&str; 8] = [
    "content-type",
    "content-encoding",
    "content-length",
    "host",
    "te",
    "grpc-encoding",
    "grpc-timeout",
    "transfer-encoding",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> OtlpSettings {
        toml::from_str(toml).expect("good settings")
    }

    fn url(settings: &OtlpSettings, signal: Signal) -> Option<String> {
        settings.url(signal).expect("a good url").map(String::from)
    }

    #[test]
    fn nothing_is_sent_until_an_endpoint_is_set() {
        assert!(!OtlpSettings::default().enabled());
        assert_eq!(settings(""), OtlpSettings::default());
        let logs = settings("logs.endpoint = 'http://c/x'");
        assert!(logs.enabled() && logs.sends(Signal::Logs) && !logs.sends(Signal::Traces));
        let off = settings("endpoint = 'http://c'\nlogs.enabled = false");
        assert!(!off.sends(Signal::Logs) && off.sends(Signal::Metrics));
        assert_eq!(url(&off, Signal::Logs), None);
    }

    #[test]
    fn paths_are_appended_to_the_shared_endpoint_only() {
        let http = settings(
            "protocol = 'http/protobuf'\nendpoint = 'https://c:4318/tenant/?k=1'\nlogs.endpoint = 'http://d:4318'",
        );
        assert_eq!(url(&http, Signal::Traces).as_deref(), Some("https://c:4318/tenant/v1/traces?k=1"));
        assert_eq!(url(&http, Signal::Logs).as_deref(), Some("http://d:4318/"));
        let grpc = settings("endpoint = 'http://c:4317'");
        assert_eq!(url(&grpc, Signal::Metrics).as_deref(), Some("http://c:4317/"));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for bad in ["localhost:4317", "c", "ftp://c", "http://", "unix:/run/x", "http://user:hunter2@c"] {
            let settings = settings(&format!("endpoint = {bad:?}"));
            let error = settings.check().expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(settings("timeout = \"0s\"").check().is_err());
        assert!(settings("metrics_interval = \"2h\"").check().is_err());
        assert!(settings("headers = { te = 'x' }").check().is_err());
        assert!(settings("headers = { 'a b' = 'x' }").check().is_err());
        assert!(settings("headers = { a = \"x\\n\" }").check().is_err());
        assert!(toml::from_str::<OtlpSettings>("endpont = 'http://c'").is_err());
        assert!(settings("endpoint = 'http://c:4317'\nheaders = { authorization = 'Bearer x' }").check().is_ok());
    }

    #[test]
    fn header_values_are_never_shown() {
        let settings = settings("headers = { authorization = 'hunter2' }");
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(!toml::to_string(&settings).expect("toml").contains("hunter2"));
        assert_eq!(settings.headers["authorization"].expose(), "hunter2");
    }
}
