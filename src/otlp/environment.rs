//! The standard `OTEL_*` variables, which override the settings (OpenTelemetry specification 1.60, protocol exporter
//! and SDK environment variables). An error names the variable, never the value of a header.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use liveqos_core::base::percent::decode_strict;

use super::record::Signal;
use super::settings::{Compression, OtlpSettings, Protocol, Secret};

/// A variable with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading {variable} from the environment: {why}")]
pub struct EnvironmentError {
    /// The variable's name.
    pub variable: String,
    /// What is wrong.
    pub why: String,
}

impl OtlpSettings {
    /// Overrides these settings with the variables that `lookup` knows; an empty value counts as absent.
    ///
    /// # Errors
    /// The first [`EnvironmentError`]; variables read before it have taken effect.
    pub fn overlay_env(&mut self, lookup: impl Fn(&str) -> Option<String>) -> Result<(), EnvironmentError> {
        let get = |variable: &str| lookup(variable).filter(|value| !value.trim().is_empty());
        let shared = Part::read("", &get)?;
        let own = Signal::ALL.map(|signal| (signal, Part::read(&format!("{}_", signal.as_str().to_uppercase()), &get)));
        self.protocol = shared.protocol.unwrap_or(self.protocol);
        self.compression = shared.compression.unwrap_or(self.compression);
        self.timeout = shared.timeout.unwrap_or(self.timeout);
        self.headers.extend(shared.headers);
        set(&mut self.ca_file, shared.certificate);
        set(&mut self.client_certificate_file, shared.client_certificate);
        set(&mut self.client_key_file, shared.client_key);
        let endpoint = shared.endpoint.map(|endpoint| with_scheme(endpoint, self.protocol, shared.insecure));
        set(&mut self.endpoint, endpoint);
        for (signal, own) in own {
            let (own, protocol) = (own?, self.protocol);
            let settings = self.of_mut(signal);
            set(&mut settings.protocol, own.protocol);
            set(&mut settings.compression, own.compression);
            set(&mut settings.timeout, own.timeout);
            if !own.headers.is_empty() {
                settings.headers = own.headers;
            }
            set(&mut settings.ca_file, own.certificate);
            set(&mut settings.client_certificate_file, own.client_certificate);
            set(&mut settings.client_key_file, own.client_key);
            let (protocol, insecure) = (settings.protocol.unwrap_or(protocol), own.insecure.or(shared.insecure));
            set(&mut settings.endpoint, own.endpoint.map(|endpoint| with_scheme(endpoint, protocol, insecure)));
        }
        for (name, only) in METRIC_FORMS {
            let variable = format!("{PREFIX}METRICS_{name}");
            if let Some(value) = get(&variable).filter(|value| !value.trim().eq_ignore_ascii_case(only)) {
                return Err(refused(&variable, format!("{value:?} is not supported; unset it or write {only}")));
            }
        }
        if let Some(text) = get(RESOURCE_ATTRIBUTES) {
            self.resource.extend(pairs(RESOURCE_ATTRIBUTES, &text)?);
        }
        if let Some(name) = get(SERVICE_NAME) {
            self.resource.insert("service.name".to_owned(), name);
        }
        Ok(())
    }
}

/// The values of one signal's variables, or of those for all signals.
#[derive(Debug, Default)]
struct Part {
    endpoint: Option<String>,
    protocol: Option<Protocol>,
    headers: BTreeMap<String, Secret>,
    compression: Option<Compression>,
    timeout: Option<Duration>,
    certificate: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    insecure: Option<bool>,
}

impl Part {
    /// `signal` is the part between prefix and name: empty, or `TRACES_`, `METRICS_`, `LOGS_`.
    fn read(signal: &str, get: &impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let get = |name: &str| {
            let variable = format!("{PREFIX}{signal}{name}");
            get(&variable).map(|value| (variable, value))
        };
        let path = |name| get(name).map(|(_, value)| PathBuf::from(value));
        let headers = get("HEADERS").map(|(variable, text)| pairs(&variable, &text)).transpose()?.unwrap_or_default();
        Ok(Self {
            endpoint: get("ENDPOINT").map(|(_, value)| value),
            protocol: get("PROTOCOL").map(|(variable, text)| protocol(&variable, &text)).transpose()?,
            headers: headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
            compression: get("COMPRESSION").map(|(variable, text)| compression(&variable, &text)).transpose()?,
            timeout: get("TIMEOUT").map(|(variable, text)| timeout(&variable, &text)).transpose()?,
            certificate: path("CERTIFICATE"),
            client_certificate: path("CLIENT_CERTIFICATE"),
            client_key: path("CLIENT_KEY"),
            // By the specification only "true", in any case, is true.
            insecure: get("INSECURE").map(|(_, text)| text.trim().eq_ignore_ascii_case("true")),
        })
    }
}

fn set<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}

/// A gRPC endpoint may be `host:port`; it uses TLS then unless `INSECURE` is true.
fn with_scheme(endpoint: String, protocol: Protocol, insecure: Option<bool>) -> String {
    if protocol != Protocol::Grpc || endpoint.contains("://") {
        return endpoint;
    }
    let scheme = if insecure == Some(true) { "http" } else { "https" };
    format!("{scheme}://{}", endpoint.trim())
}

fn protocol(variable: &str, text: &str) -> Result<Protocol, EnvironmentError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        other => Err(refused(variable, format!("{other:?} is neither grpc nor http/protobuf"))),
    }
}

fn compression(variable: &str, text: &str) -> Result<Compression, EnvironmentError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "none" => Ok(Compression::None),
        other => Err(refused(variable, format!("{other:?} is none of gzip, zstd and none"))),
    }
}

fn timeout(variable: &str, text: &str) -> Result<Duration, EnvironmentError> {
    match text.trim().parse::<u32>() {
        Ok(millis) if (1..=3_600_000).contains(&millis) => Ok(Duration::from_millis(u64::from(millis))),
        _ => Err(refused(variable, "it must be 1 to 3600000 milliseconds".to_owned())),
    }
}

/// Parses `key1=value1,key2=value2`, the form of W3C Baggage without properties; both sides are percent-decoded.
fn pairs(variable: &str, text: &str) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let parts = text.split(',').map(str::trim).enumerate();
    parts
        .filter(|(_, part)| !part.is_empty())
        .map(|(at, part)| {
            let number = at + 1;
            let (key, value) =
                part.split_once('=').ok_or_else(|| refused(variable, format!("entry {number} has no '='")))?;
            let decode = |text: &str| {
                decode_strict(text.trim())
                    .ok_or_else(|| refused(variable, format!("entry {number} is not valid percent-encoding")))
            };
            let key = decode(key)?;
            if key.is_empty() {
                return Err(refused(variable, format!("entry {number} has no key")));
            }
            Ok((key, decode(value)?))
        })
        .collect()
}

fn refused(variable: &str, why: String) -> EnvironmentError {
    EnvironmentError { variable: variable.to_owned(), why }
}

/// Variables that choose the form of metrics, and the only value that liveqos supports.
const METRIC_FORMS: [(&str, &str); 2] =
    [("TEMPORALITY_PREFERENCE", "cumulative"), ("DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram")];
const PREFIX: &str = "OTEL_EXPORTER_OTLP_";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

#[cfg(test)]
mod tests {
    use liveqos_core::base::hex;
    use proptest::prelude::*;

    use super::*;
    use crate::otlp::settings::SignalSettings;

    fn overlaid(variables: &[(&str, &str)]) -> Result<OtlpSettings, EnvironmentError> {
        let mut settings = OtlpSettings::default();
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        settings.overlay_env(|name| find(name).map(|(_, value)| (*value).to_owned()))?;
        Ok(settings)
    }

    #[test]
    fn every_variable_is_read() {
        let settings = overlaid(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20eA%3D%3D, x-scope=a"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "None"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Cumulative"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/etc/node.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/etc/node.key"),
            (RESOURCE_ATTRIBUTES, "team=ops,room=%E8%AF%BE,service.name=no"),
            (SERVICE_NAME, "qos"),
        ])
        .expect("good variables");
        assert_eq!(settings.endpoint.as_deref(), Some("http://c:4318"));
        assert_eq!(settings.traces, SignalSettings::default());
        assert_eq!(settings.protocol, Protocol::HttpProtobuf);
        assert_eq!(settings.headers["authorization"].expose(), "Basic eA==");
        assert_eq!(settings.headers["x-scope"].expose(), "a");
        assert_eq!(settings.compression, Compression::None);
        assert_eq!(settings.timeout, Duration::from_millis(2_500));
        assert_eq!(settings.ca_file, Some("/etc/ca.pem".into()));
        assert_eq!(settings.client_certificate_file, Some("/etc/node.pem".into()));
        assert_eq!(settings.client_key_file, Some("/etc/node.key".into()));
        let resource = [("room", "课"), ("service.name", "qos"), ("team", "ops")];
        assert_eq!(settings.resource, resource.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_signal_has_its_own_variables() {
        let settings = overlaid(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d/traces"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "k=v"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/ca"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/c"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/k"),
        ])
        .expect("good variables");
        let traces = SignalSettings {
            enabled: true,
            endpoint: Some("http://d/traces".to_owned()),
            failover: Vec::new(),
            protocol: Some(Protocol::HttpProtobuf),
            headers: [("k".to_owned(), Secret::new("v".to_owned()))].into(),
            compression: Some(Compression::Zstd),
            timeout: Some(Duration::from_millis(7)),
            ca_file: Some("/ca".into()),
            client_certificate_file: Some("/c".into()),
            client_key_file: Some("/k".into()),
        };
        assert_eq!(settings, OtlpSettings { traces, ..OtlpSettings::default() });
    }

    #[test]
    fn a_grpc_endpoint_without_a_scheme_uses_tls_unless_insecure() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317");
        for (insecure, expected) in [("", "https://c:4317"), ("True", "http://c:4317"), ("yes", "https://c:4317")] {
            let settings = overlaid(&[endpoint, ("OTEL_EXPORTER_OTLP_INSECURE", insecure)]).expect("good variables");
            assert_eq!(settings.endpoint.as_deref(), Some(expected));
        }
        let both =
            [endpoint, ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "d:1"), ("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "true")];
        let settings = overlaid(&both).expect("good variables");
        assert_eq!(settings.logs.endpoint.as_deref(), Some("http://d:1"));
        let http = overlaid(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).expect("good variables");
        assert!(http.check().is_err(), "HTTP requires a scheme");
    }

    #[test]
    fn empty_is_absent() {
        let names =
            ["ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "TRACES_HEADERS"].map(|name| format!("{PREFIX}{name}"));
        let variables: Vec<_> = names.iter().map(|name| (name.as_str(), " ")).collect();
        assert_eq!(overlaid(&variables), Ok(OtlpSettings::default()));
    }

    #[test]
    fn a_bad_value_is_named_without_its_secret() {
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "udp"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "lz4"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=ok,hunter2"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=hunter2%4"),
            (RESOURCE_ATTRIBUTES, "=x"),
            (RESOURCE_ATTRIBUTES, "a=%ff"),
        ] {
            let error = overlaid(&[(variable, value)]).expect_err(value);
            assert_eq!(error.variable, variable);
            assert!(error.to_string().contains(variable) && !error.to_string().contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_an_error(text in "\\PC{0,40}") {
            prop_assert!(pairs("HEADERS", &text).is_err() || !text.contains("%%"));
            let digits = hex::encode(text.as_bytes());
            let escaped: Vec<&str> = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
            let escaped = escaped.iter().fold(String::new(), |all, pair| all + "%" + pair);
            prop_assert_eq!(decode_strict(&escaped), Some(text));
        }
    }
}
