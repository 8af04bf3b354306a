//! The standard `OTEL_*` variables over the settings. Decides how their values are read (OpenTelemetry specification 1.60,
//! protocol exporter and SDK environment variables); refuses a value that it cannot read, naming the variable and never a
//! header's value.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::Signal;
use super::settings::{Compression, OtlpSettings, Protocol, Secret};

/// A variable whose value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading {variable} from the environment: {why}")]
pub struct EnvironmentError {
    /// Its name.
    pub variable: &'static str,
    /// What is wrong.
    pub why: String,
}

impl OtlpSettings {
    /// Lays the variables that `lookup` knows over these settings; an empty value counts as absent.
    ///
    /// # Errors
    /// [`EnvironmentError`] of the first variable that cannot be read; what came before it stays laid over.
    pub fn overlay_env(&mut self, lookup: impl Fn(&str) -> Option<String>) -> Result<(), EnvironmentError> {
        let get = |variable| lookup(variable).filter(|value| !value.trim().is_empty());
        if let Some(endpoint) = get(ENDPOINT) {
            self.endpoint = Some(endpoint);
        }
        for (signal, variable) in SIGNAL_ENDPOINTS {
            if let Some(endpoint) = get(variable) {
                self.of_mut(signal).endpoint = Some(endpoint);
            }
        }
        if let Some(text) = get(PROTOCOL) {
            self.protocol = protocol(&text)?;
        }
        if let Some(text) = get(COMPRESSION) {
            self.compression = compression(&text)?;
        }
        if let Some(text) = get(TIMEOUT) {
            self.timeout = timeout(&text)?;
        }
        if let Some(path) = get(CERTIFICATE) {
            self.ca_file = Some(path.into());
        }
        if let Some(text) = get(HEADERS) {
            let headers = pairs(HEADERS, &text)?;
            let headers = headers.into_iter().map(|(name, value)| (name, Secret::new(value)));
            self.headers.extend(headers);
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

fn protocol(text: &str) -> Result<Protocol, EnvironmentError> {
    match text.trim() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        other => Err(refused(PROTOCOL, format!("{other:?} is neither grpc nor http/protobuf"))),
    }
}

fn compression(text: &str) -> Result<Compression, EnvironmentError> {
    match text.trim() {
        "gzip" => Ok(Compression::Gzip),
        "none" => Ok(Compression::None),
        other => Err(refused(COMPRESSION, format!("{other:?} is neither gzip nor none"))),
    }
}

fn timeout(text: &str) -> Result<Duration, EnvironmentError> {
    match text.trim().parse::<u32>() {
        Ok(millis) if (1..=3_600_000).contains(&millis) => Ok(Duration::from_millis(u64::from(millis))),
        _ => Err(refused(TIMEOUT, "it must be 1 to 3600000 milliseconds".to_owned())),
    }
}

/// `key1=value1,key2=value2` of W3C Baggage without properties, both sides percent-decoded.
fn pairs(variable: &'static str, text: &str) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let parts = text.split(',').map(str::trim).enumerate();
    parts
        .filter(|(_, part)| !part.is_empty())
        .map(|(at, part)| {
            let place = at + 1;
            let (key, value) =
                part.split_once('=').ok_or_else(|| refused(variable, format!("entry {place} has no '='")))?;
            let decode = |text: &str| {
                percent_decoded(text.trim()).ok_or_else(|| refused(variable, format!("entry {place} is badly escaped")))
            };
            let key = decode(key)?;
            if key.is_empty() {
                return Err(refused(variable, format!("entry {place} has no key")));
            }
            Ok((key, decode(value)?))
        })
        .collect()
}

/// `None` where an escape is not two hexadecimal digits or the whole is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(out).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

fn refused(variable: &'static str, why: String) -> EnvironmentError {
    EnvironmentError { variable, why }
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const SIGNAL_ENDPOINTS: [(Signal, &str); 3] = [
    (Signal::Traces, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    (Signal::Metrics, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
    (Signal::Logs, "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
];
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const COMPRESSION: &str = "OTEL_EXPORTER_OTLP_COMPRESSION";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlaid(variables: &[(&str, &str)]) -> Result<OtlpSettings, EnvironmentError> {
        let mut settings = OtlpSettings::default();
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        settings.overlay_env(|name| find(name).map(|(_, value)| (*value).to_owned()))?;
        Ok(settings)
    }

    #[test]
    fn every_variable_is_read() {
        let settings = overlaid(&[
            (ENDPOINT, "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://d/logs"),
            (PROTOCOL, "http/protobuf"),
            (HEADERS, "authorization=Basic%20eA%3D%3D, x-scope=a"),
            (COMPRESSION, "none"),
            (TIMEOUT, "2500"),
            (CERTIFICATE, "/etc/ca.pem"),
            (RESOURCE_ATTRIBUTES, "team=ops,room=%E8%AF%BE,service.name=no"),
            (SERVICE_NAME, "qos"),
        ])
        .expect("good variables");
        assert_eq!(settings.endpoint.as_deref(), Some("http://c:4318"));
        assert_eq!(settings.logs.endpoint.as_deref(), Some("http://d/logs"));
        assert_eq!(settings.traces.endpoint, None);
        assert_eq!(settings.protocol, Protocol::HttpProtobuf);
        assert_eq!(settings.headers["authorization"].expose(), "Basic eA==");
        assert_eq!(settings.headers["x-scope"].expose(), "a");
        assert_eq!(settings.compression, Compression::None);
        assert_eq!(settings.timeout, Duration::from_millis(2_500));
        assert_eq!(settings.ca_file, Some("/etc/ca.pem".into()));
        let resource = [("room", "课"), ("service.name", "qos"), ("team", "ops")];
        assert_eq!(settings.resource, resource.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn empty_is_absent() {
        let settings = overlaid(&[(ENDPOINT, ""), (PROTOCOL, " "), (HEADERS, ""), (TIMEOUT, "")]);
        assert_eq!(settings, Ok(OtlpSettings::default()));
    }

    #[test]
    fn a_bad_value_is_named_without_its_secret() {
        for (variable, value) in [
            (PROTOCOL, "http/json"),
            (COMPRESSION, "zstd"),
            (TIMEOUT, "10s"),
            (TIMEOUT, "0"),
            (HEADERS, "a=ok,hunter2"),
            (HEADERS, "a=hunter2%4"),
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
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            prop_assert!(pairs(HEADERS, &text).is_err() || !text.contains("%%"));
            let digits = crate::otlp::ids::hex(text.as_bytes());
            let escaped: Vec<&str> = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
            let escaped = escaped.iter().fold(String::new(), |all, pair| all + "%" + pair);
            prop_assert_eq!(percent_decoded(&escaped), Some(text));
        }
    }
}
