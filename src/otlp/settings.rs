//! `[otlp]` of the configuration: where to send and how. The values of headers are never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::Signal;
use crate::platform::duration;

/// OTLP export; off until an endpoint is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpSettings {
    /// The collector, `http://host:4317` for gRPC or `http://host:4318` for HTTP; `https://` for TLS. Under HTTP the
    /// signals' paths (`/v1/traces`, ...) are appended. Environment: `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: Option<String>,
    /// Endpoints to use instead, in this order, while the first is silent or unavailable.
    pub failover: Vec<String>,
    /// Transport: `grpc` or `http/protobuf`. Environment: `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub protocol: Protocol,
    /// Headers of every request, such as `authorization`; values are never logged. Environment:
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: BTreeMap<String, Secret>,
    /// Compression of requests. Environment: `OTEL_EXPORTER_OTLP_COMPRESSION`.
    pub compression: Compression,
    /// Longest wait for an answer before a request is repeated. Environment: `OTEL_EXPORTER_OTLP_TIMEOUT`
    /// (milliseconds there).
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Duration,
    /// PEM file with the authorities to trust instead of the system's. Environment: `OTEL_EXPORTER_OTLP_CERTIFICATE`.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this node's client certificate (mutual TLS) and its chain. Environment:
    /// `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`.
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file with its private key. Environment: `OTEL_EXPORTER_OTLP_CLIENT_KEY`.
    pub client_key_file: Option<PathBuf>,
    /// Time between two exports of metrics.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub metrics_interval: Duration,
    /// Spans of classes.
    pub traces: SignalSettings,
    /// Metrics, in addition to the Prometheus page.
    pub metrics: SignalSettings,
    /// Log events: each sample when it is cut, incidents when they begin and end.
    pub logs: SignalSettings,
    /// Additional resource attributes. Environment: `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`.
    pub resource: BTreeMap<String, String>,
    /// Further targets for all or some signals.
    pub copies: Vec<CopySettings>,
}

impl OtlpSettings {
    /// Whether any signal has a target.
    #[must_use]
    pub fn enabled(&self) -> bool {
        let main = Signal::ALL.iter().any(|signal| self.of(*signal).enabled && self.has_endpoint(*signal));
        main || !self.copies.is_empty()
    }

    fn has_endpoint(&self, signal: Signal) -> bool {
        self.endpoint.is_some() || self.of(signal).endpoint.is_some()
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

    /// The settings of one signal, mutable.
    pub(super) fn of_mut(&mut self, signal: Signal) -> &mut SignalSettings {
        match signal {
            Signal::Traces => &mut self.traces,
            Signal::Metrics => &mut self.metrics,
            Signal::Logs => &mut self.logs,
        }
    }

    /// Checks what types cannot: URLs, durations, header names and values, names of copies.
    ///
    /// # Errors
    /// The first [`SettingsError`].
    pub fn check(&self) -> Result<(), SettingsError> {
        // The shared values must be valid even where every signal has its own.
        between("otlp.timeout", self.timeout, SHORTEST_TIMEOUT)?;
        check_headers("otlp", &self.headers)?;
        self.metrics_interval()?;
        let mut names = BTreeSet::new();
        for target in self.targets() {
            if let Some(copy) = target.copy {
                let plain = copy.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
                if copy.name.is_empty() || copy.name.len() > MAX_TARGET_NAME || !plain {
                    return Err(SettingsError::CopyName(copy.name.clone()));
                }
            }
            if !names.insert(target.name()) {
                return Err(SettingsError::CopyName(target.name().to_owned()));
            }
            Signal::ALL.iter().try_for_each(|signal| target.signal_config(*signal).map(drop))?;
        }
        Ok(())
    }

    /// Time between two exports of metrics.
    ///
    /// # Errors
    /// [`SettingsError::Duration`] where it is not between a second and an hour.
    pub fn metrics_interval(&self) -> Result<Duration, SettingsError> {
        between("otlp.metrics_interval", self.metrics_interval, SHORTEST_INTERVAL)
    }
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            failover: Vec::new(),
            protocol: Protocol::default(),
            headers: BTreeMap::new(),
            compression: Compression::default(),
            timeout: Duration::from_secs(10),
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            metrics_interval: Duration::from_secs(15),
            traces: SignalSettings::default(),
            metrics: SignalSettings::default(),
            logs: SignalSettings::default(),
            resource: BTreeMap::new(),
            copies: Vec::new(),
        }
    }
}

/// One signal. What is not set here is taken from `[otlp]`. Environment: the variables of `[otlp]` with the signal's
/// name, such as `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignalSettings {
    /// Whether the signal is sent.
    pub enabled: bool,
    /// The signal's own collector, used as written: under HTTP with its path.
    pub endpoint: Option<String>,
    /// Endpoints to use instead, as written, while its own is silent or unavailable.
    pub failover: Vec<String>,
    /// Transport: `grpc` or `http/protobuf`.
    pub protocol: Option<Protocol>,
    /// Headers of its requests instead of the shared ones.
    pub headers: BTreeMap<String, Secret>,
    /// Compression of its requests.
    pub compression: Option<Compression>,
    /// Longest wait for an answer before a request is repeated.
    #[serde(with = "duration::option")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Option<Duration>,
    /// PEM file with the authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this node's client certificate.
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file with its private key.
    pub client_key_file: Option<PathBuf>,
}

impl Default for SignalSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: None,
            failover: Vec::new(),
            protocol: None,
            headers: BTreeMap::new(),
            compression: None,
            timeout: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
        }
    }
}

/// A further target with a queue of its own: a slow or unavailable one neither delays nor loses what others get. What
/// is not set is taken from `[otlp]`, except headers and client certificate, which are meant for one collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopySettings {
    /// The target's name in metrics, logs and the spool: lower-case letters, digits and `-`.
    pub name: String,
    /// The collector, in the form of `otlp.endpoint`.
    pub endpoint: String,
    /// Endpoints to use instead while the first is silent or unavailable.
    #[serde(default)]
    pub failover: Vec<String>,
    /// The signals to send to it: `traces`, `metrics`, `logs`; all where it is not set.
    #[serde(default = "all_signals")]
    pub signals: Vec<Signal>,
    /// Transport: `grpc` or `http/protobuf`.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// Headers of every request to it.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Compression of requests.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// Longest wait for an answer before a request is repeated.
    #[serde(default, with = "duration::option")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Option<Duration>,
    /// PEM file with the authorities to trust.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with this node's client certificate.
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file with its private key.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
}

fn all_signals() -> Vec<Signal> {
    Signal::ALL.to_vec()
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
    /// Gzip (RFC 1952), which every OTLP server must accept.
    #[default]
    Gzip,
    /// Zstandard (RFC 8878): smaller and cheaper where the collector accepts it, as the OpenTelemetry Collector does.
    Zstd,
    /// No compression.
    None,
}

/// A text that is sent but never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
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
    /// Hidden here too, because people print settings to debug them.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[hidden]")
    }
}

/// Why the settings are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// An endpoint is not a URL.
    #[error("reading the endpoint of {place}: {why}")]
    Endpoint {
        /// The target and its signal.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A duration is out of bounds: the setting, and the least value.
    #[error("reading {0}: it must be between {1} and 1h")]
    Duration(String, String),
    /// A header that cannot be sent: the target, and the header's name.
    #[error("reading headers of {0}: {1:?} cannot be set as a header, or its value is not printable ASCII")]
    Header(String, String),
    /// A client certificate without its key, or the reverse.
    #[error("reading {0}: client_certificate_file and client_key_file must be set together")]
    HalfIdentity(String),
    /// The name of a copy is invalid or not unique.
    #[error(
        "reading otlp.copies: {0:?} is not a valid name; write a unique one of at most {MAX_TARGET_NAME} lower-case letters, digits and '-'"
    )]
    CopyName(String),
}

/// Checks that `value` is between `least` and an hour.
pub(super) fn between(name: &str, value: Duration, least: Duration) -> Result<Duration, SettingsError> {
    let good = (least..=LONGEST).contains(&value);
    good.then_some(value).ok_or_else(|| SettingsError::Duration(name.to_owned(), duration::format(least)))
}

/// Checks that `headers` can be sent and are not set by the exporter itself.
pub(super) fn check_headers(place: &str, headers: &BTreeMap<String, Secret>) -> Result<(), SettingsError> {
    headers.iter().try_for_each(|(name, value)| {
        let good = reqwest::header::HeaderName::try_from(name).is_ok()
            && reqwest::header::HeaderValue::try_from(value.expose()).is_ok()
            && !RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name));
        good.then_some(()).ok_or_else(|| SettingsError::Header(place.to_owned(), name.clone()))
    })
}

/// Shortest `timeout`.
pub(super) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
/// Shortest `metrics_interval`.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// Longest `timeout` and `metrics_interval`.
const LONGEST: Duration = Duration::from_hours(1);
/// Longest name of a copy, in bytes.
pub(super) const MAX_TARGET_NAME: usize = 32;

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
        let target = settings.targets().next().expect("the main target");
        target.signal_config(signal).expect("valid settings").map(|config| config.urls[0].to_string())
    }

    #[test]
    fn nothing_is_sent_until_an_endpoint_is_set() {
        assert!(!OtlpSettings::default().enabled());
        assert_eq!(settings(""), OtlpSettings::default());
        let logs = settings("logs.endpoint = 'http://c/x'");
        assert!(logs.enabled() && url(&logs, Signal::Logs).is_some() && url(&logs, Signal::Traces).is_none());
        let off = settings("endpoint = 'http://c'\nlogs.enabled = false");
        assert!(url(&off, Signal::Metrics).is_some());
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
    fn invalid_settings_are_refused() {
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
