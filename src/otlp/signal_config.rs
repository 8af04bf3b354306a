//! The settings in effect for one signal and one target. The narrower setting wins; URLs follow the OpenTelemetry
//! protocol exporter specification, endpoint URLs for OTLP/HTTP. Credentials of one collector are never used for
//! another.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::Url;

use super::record::Signal;
use super::settings::{
    Compression, CopySettings, OtlpSettings, Protocol, SHORTEST_TIMEOUT, Secret, SettingsError, between, check_headers,
};

/// A configured target: that of `[otlp]` itself, or one of `[[otlp.copies]]`.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    settings: &'a OtlpSettings,
    /// The copy's settings, where it is one.
    pub(super) copy: Option<&'a CopySettings>,
}

/// What the clients of one signal and target need to know.
#[derive(Clone, Debug)]
pub struct SignalConfig<'a> {
    /// The endpoints, the preferred first; under HTTP with their path.
    pub urls: Vec<Url>,
    /// The transport.
    pub protocol: Protocol,
    /// Headers of every request.
    pub headers: &'a BTreeMap<String, Secret>,
    /// Compression of every request.
    pub compression: Compression,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<&'a Path>,
    /// PEM files of this node's certificate and its private key.
    pub identity: Option<(&'a Path, &'a Path)>,
}

impl OtlpSettings {
    /// All targets, that of `[otlp]` first.
    pub fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        let copies = self.copies.iter().map(|copy| Target { settings: self, copy: Some(copy) });
        std::iter::once(Target { settings: self, copy: None }).chain(copies)
    }

    /// The names of targets in use, each with the signals sent to it in the order of [`Signal::ALL`]; for the spool.
    #[must_use]
    pub fn spooled_targets(&self) -> Vec<(String, [bool; 3])> {
        // An invalid target is reported by whoever starts it.
        let gets = |target: Target<'_>| Signal::ALL.map(|signal| !matches!(target.signal_config(signal), Ok(None)));
        let all = self.targets().map(|target| (target.name().to_owned(), gets(target)));
        all.filter(|(_, gets)| gets.contains(&true)).collect()
    }
}

impl<'a> Target<'a> {
    /// The name in metrics, logs and the spool.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.copy.map_or(MAIN, |copy| &copy.name)
    }

    /// The settings of `signal`; `None` where it is not sent to this target.
    ///
    /// # Errors
    /// The first [`SettingsError`].
    pub fn signal_config(&self, signal: Signal) -> Result<Option<SignalConfig<'a>>, SettingsError> {
        let place = format!("otlp {} of {}", signal.as_str(), self.name());
        let config = self.copy.map_or_else(|| self.own(signal, &place), |copy| self.copied(copy, signal, &place))?;
        if let Some(config) = &config {
            between(&format!("the timeout of {place}"), config.timeout, SHORTEST_TIMEOUT)?;
            check_headers(&place, config.headers)?;
        }
        Ok(config)
    }

    fn own(&self, signal: Signal, place: &str) -> Result<Option<SignalConfig<'a>>, SettingsError> {
        let (shared, own) = (self.settings, self.settings.of(signal));
        let protocol = own.protocol.unwrap_or(shared.protocol);
        let (endpoint, failover, path) = match (&own.endpoint, &shared.endpoint) {
            _ if !own.enabled => return Ok(None),
            (Some(endpoint), _) => (endpoint, &own.failover, ""),
            (None, Some(endpoint)) => (endpoint, &shared.failover, path(signal, protocol)),
            (None, None) => return Ok(None),
        };
        let certificate = own.client_certificate_file.as_ref().or(shared.client_certificate_file.as_ref());
        let key = own.client_key_file.as_ref().or(shared.client_key_file.as_ref());
        Ok(Some(SignalConfig {
            urls: urls(endpoint, failover, path, place)?,
            protocol,
            headers: if own.headers.is_empty() { &shared.headers } else { &own.headers },
            compression: own.compression.unwrap_or(shared.compression),
            timeout: own.timeout.unwrap_or(shared.timeout),
            ca_file: own.ca_file.as_ref().or(shared.ca_file.as_ref()).map(AsRef::as_ref),
            identity: identity(certificate.map(AsRef::as_ref), key.map(AsRef::as_ref), place)?,
        }))
    }

    fn copied(
        &self,
        copy: &'a CopySettings,
        signal: Signal,
        place: &str,
    ) -> Result<Option<SignalConfig<'a>>, SettingsError> {
        if !copy.signals.contains(&signal) {
            return Ok(None);
        }
        let shared = self.settings;
        let protocol = copy.protocol.unwrap_or(shared.protocol);
        let (certificate, key) = (copy.client_certificate_file.as_deref(), copy.client_key_file.as_deref());
        Ok(Some(SignalConfig {
            urls: urls(&copy.endpoint, &copy.failover, path(signal, protocol), place)?,
            protocol,
            headers: &copy.headers,
            compression: copy.compression.unwrap_or(shared.compression),
            timeout: copy.timeout.unwrap_or(shared.timeout),
            ca_file: copy.ca_file.as_ref().or(shared.ca_file.as_ref()).map(AsRef::as_ref),
            identity: identity(certificate, key, place)?,
        }))
    }
}

const fn path(signal: Signal, protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "",
        Protocol::HttpProtobuf => signal.http_path(),
    }
}

fn identity<'a>(
    certificate: Option<&'a Path>,
    key: Option<&'a Path>,
    place: &str,
) -> Result<Option<(&'a Path, &'a Path)>, SettingsError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        _ => Err(SettingsError::HalfIdentity(place.to_owned())),
    }
}

fn urls(first: &str, others: &[String], path: &str, place: &str) -> Result<Vec<Url>, SettingsError> {
    std::iter::once(first).chain(others.iter().map(String::as_str)).map(|text| url(text, path, place)).collect()
}

fn url(text: &str, path: &str, place: &str) -> Result<Url, SettingsError> {
    let refuse = |why: String| SettingsError::Endpoint { place: place.to_owned(), why };
    let mut url: Url =
        text.trim().parse().map_err(|error| refuse(format!("{error}; write it like http://collector:4317")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refuse("it must begin with http:// or https:// and contain a host".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("credentials belong in headers, not in the URL".to_owned()));
    }
    if !path.is_empty() {
        let joined = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
    }
    Ok(url)
}

/// The name of the target of `[otlp]` itself.
pub(super) const MAIN: &str = "main";

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> OtlpSettings {
        toml::from_str(toml).expect("settings that parse")
    }

    #[test]
    fn the_narrower_setting_wins() {
        let settings = settings(
            "endpoint = 'http://a:4317'\nheaders = { k = 'shared' }\ntimeout = '3s'\nca_file = '/ca'\n\
             [traces]\nprotocol = 'http/protobuf'\ncompression = 'zstd'\n[logs]\nheaders = { k = 'own' }\ntimeout = '1s'",
        );
        let main = settings.targets().next().expect("a target");
        let config = |signal| main.signal_config(signal).expect("good").expect("sent");
        let (traces, logs) = (config(Signal::Traces), config(Signal::Logs));
        assert_eq!(traces.urls[0].as_str(), "http://a:4317/v1/traces");
        assert_eq!((traces.protocol, traces.compression), (Protocol::HttpProtobuf, Compression::Zstd));
        assert_eq!((traces.headers["k"].expose(), traces.timeout.as_secs()), ("shared", 3));
        assert_eq!((logs.headers["k"].expose(), logs.timeout.as_secs()), ("own", 1));
        assert_eq!((logs.urls[0].as_str(), logs.ca_file), ("http://a:4317/", Some(Path::new("/ca"))));
    }

    #[test]
    fn a_copy_has_its_own_credentials_and_signals() {
        let settings = settings(
            "endpoint = 'http://a:4317'\nheaders = { authorization = 'hunter2' }\nclient_certificate_file = '/c'\n\
             client_key_file = '/k'\ncompression = 'zstd'\n\
             [[copies]]\nname = 'analytics'\nendpoint = 'https://b:4318'\nprotocol = 'http/protobuf'\n\
             signals = ['logs']\nfailover = ['https://c:4318/x']",
        );
        settings.check().expect("good settings");
        let targets: Vec<_> = settings.targets().collect();
        assert_eq!(targets.iter().map(Target::name).collect::<Vec<_>>(), ["main", "analytics"]);
        assert!(targets[0].signal_config(Signal::Logs).expect("good").expect("sent").identity.is_some());
        assert!(targets[1].signal_config(Signal::Traces).expect("good").is_none());
        let logs = targets[1].signal_config(Signal::Logs).expect("good").expect("sent");
        let urls: Vec<_> = logs.urls.iter().map(Url::as_str).collect();
        assert_eq!(urls, ["https://b:4318/v1/logs", "https://c:4318/x/v1/logs"]);
        assert!(logs.headers.is_empty() && logs.identity.is_none());
        assert_eq!(logs.compression, Compression::Zstd);
    }

    #[test]
    fn errors_name_the_target() {
        for (toml, place) in [
            ("endpoint = 'http://a'\nclient_key_file = '/k'", "otlp traces of main"),
            ("[[copies]]\nname = 'b'\nendpoint = 'nowhere'", "of b"),
            ("[[copies]]\nname = 'B c'\nendpoint = 'http://b'", "\"B c\""),
            ("[[copies]]\nname = 'main'\nendpoint = 'http://b'", "\"main\""),
            ("endpoint = 'http://a'\nlogs.timeout = '2h'", "otlp logs of main"),
            ("endpoint = 'http://a'\nfailover = ['x']", "otlp traces of main"),
        ] {
            let error = settings(toml).check().expect_err(toml).to_string();
            assert!(error.contains(place), "{error}");
        }
    }
}
