//! Checks a `[[sources]]` table before anything is requested from it: names, URLs, intervals and secrets. A fault names
//! the source, the key, the value and what to do.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use liveqos_core::model::{Name, SourceName};
use liveqos_probes::probe::{Kind, Probe, SettingsError};
use reqwest::Url;

use super::credentials::{Credentials, Secret, SecretError};
use super::settings::{COMMON_KEYS, SourceSettings};
use super::shown_url::shown;
use crate::platform::suggest::did_you_mean;

/// A source whose settings are valid: everything needed to poll it.
pub struct Source {
    /// Its unique name.
    pub name: SourceName,
    /// The kind of server.
    pub kind: &'static Kind,
    /// Time from the start of one poll round to the next, as long as the server answers quickly.
    pub interval: Duration,
    /// Time limit of one response.
    pub timeout: Duration,
    /// TCP ports on which it serves viewers.
    pub media_ports: Vec<u16>,
    pub(crate) url: Url,
    pub(crate) credentials: Option<Credentials>,
    settings: toml::Table,
}

impl Source {
    /// Checks one table against `kinds` (in production [`liveqos_probes::KINDS`]) and reads its secrets.
    ///
    /// # Errors
    /// [`SourceError`], which names the source, the key, the value and what to do.
    pub fn new(settings: &SourceSettings, kinds: &[&'static Kind]) -> Result<Self, SourceError> {
        let name = settings.name.as_deref().unwrap_or(&settings.kind);
        let wrong = |fault| SourceError { name: name.chars().filter(|c| !c.is_control()).take(64).collect(), fault };
        let kind = kind_of(&settings.kind, kinds).map_err(wrong)?;
        let checked = Name::new(name)
            .ok()
            .filter(|name| !name.as_str().contains(['/', '?', '#', '%']))
            .ok_or_else(|| wrong(Fault::Name))?;
        let source = Self {
            name: SourceName::from(checked.as_str()),
            kind,
            url: url_of(settings.url.as_deref().unwrap_or(kind.default_url)).map_err(wrong)?,
            interval: within("interval", settings.interval.unwrap_or(kind.default_interval), INTERVALS)
                .map_err(wrong)?,
            timeout: within("timeout", settings.timeout.unwrap_or(DEFAULT_TIMEOUT), TIMEOUTS).map_err(wrong)?,
            media_ports: settings.media_ports.clone().unwrap_or_else(|| kind.media_ports.to_vec()),
            credentials: credentials_of(settings).map_err(wrong)?,
            settings: settings.settings.clone(),
        };
        source.probe().map_err(|error| wrong(kind_fault(&source, &error)))?;
        Ok(source)
    }

    /// Checks all tables, and that every name is unique.
    ///
    /// # Errors
    /// The first [`SourceError`].
    pub fn all(settings: &[SourceSettings], kinds: &[&'static Kind]) -> Result<Vec<Arc<Self>>, SourceError> {
        let mut names = BTreeSet::new();
        let mut sources = Vec::with_capacity(settings.len());
        for settings in settings {
            let source = Self::new(settings, kinds)?;
            if !names.insert(source.name.clone()) {
                return Err(SourceError { name: source.name.to_string(), fault: Fault::Twice });
            }
            sources.push(Arc::new(source));
        }
        Ok(sources)
    }

    /// A new probe of this source, without any state.
    ///
    /// # Errors
    /// [`SettingsError`]; never for a source that [`Source::new`] accepted, as a kind decides by its settings alone.
    pub fn probe(&self) -> Result<Box<dyn Probe>, SettingsError> {
        (self.kind.build)(self.settings.clone())
    }

    /// The base URL without user, password, query and fragment, fit to be shown.
    #[must_use]
    pub fn shown_url(&self) -> String {
        shown(&self.url)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("kind", &self.kind.name)
            .field("url", &self.shown_url())
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A `[[sources]]` table that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source \"{name}\": {fault}")]
pub struct SourceError {
    /// The source's name as configured.
    pub name: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with a `[[sources]]` table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The kind is not supported.
    #[error("kind = \"{kind}\" is not supported{near}; known kinds: {known}")]
    Kind {
        /// The configured value.
        kind: String,
        /// The most similar supported kind, as a question; may be empty.
        near: String,
        /// All supported kinds.
        known: String,
    },
    /// The name does not fit into labels and URL paths.
    #[error("name must be 1 to 128 bytes of printable text without / ? # %; choose another name")]
    Name,
    /// Two sources have the same name.
    #[error("name is used twice; give each source of the same kind its own name = \"...\"")]
    Twice,
    /// The URL cannot be requested. `url` contains no secrets.
    #[error("url = \"{url}\" {detail}")]
    Url {
        /// The configured value, as far as it may be shown.
        url: String,
        /// What is wrong and what to write instead.
        detail: String,
    },
    /// A duration outside its allowed range.
    #[error("{key} = \"{value}\" is outside \"{least}\" to \"{most}\"; choose one within")]
    Range {
        /// The key.
        key: &'static str,
        /// The configured value.
        value: String,
        /// The shortest allowed.
        least: String,
        /// The longest allowed.
        most: String,
    },
    /// The keys for credentials contradict each other.
    #[error("{0}")]
    Credentials(&'static str),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A key that belongs neither to sources in general nor to this kind.
    #[error("unknown key \"{key}\"{near}; known keys: {known}")]
    Key {
        /// The key.
        key: String,
        /// The most similar known key, as a question; may be empty.
        near: String,
        /// All known keys.
        known: String,
    },
    /// The kind rejected its own keys.
    #[error("{0}")]
    Own(String),
}

fn kind_of(name: &str, kinds: &[&'static Kind]) -> Result<&'static Kind, Fault> {
    let found = kinds.iter().copied().find(|kind| kind.name == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        Fault::Kind {
            kind: name.chars().filter(|c| !c.is_control()).take(64).collect(),
            near: did_you_mean(name, known.iter().copied()),
            known: known.join(", "),
        }
    })
}

/// User and password in a URL are rejected: a secret belongs in a file or the environment, and URLs are shown to
/// people.
fn url_of(text: &str) -> Result<Url, Fault> {
    let fault = |url: String, detail: String| Fault::Url { url, detail };
    let example = "write one such as \"http://127.0.0.1:1985\"";
    let url = Url::parse(text.trim()).map_err(|error| {
        // A text that cannot be parsed may contain a secret anywhere after its first part.
        let start = text.split(['@', '?']).next().filter(|start| start.len() == text.len()).unwrap_or("(hidden)");
        fault(start.to_owned(), format!("is not a URL ({error}); {example}"))
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(fault(shown(&url), format!("is neither http nor https; {example}")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let detail =
            "carries a user name or password; take them out and use username with password_file or password_env";
        return Err(fault(shown(&url), detail.to_owned()));
    }
    Ok(url)
}

fn within(key: &'static str, value: Duration, (least, most): (Duration, Duration)) -> Result<Duration, Fault> {
    let text = crate::platform::duration::format;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Fault::Range { key, value: text(value), least: text(least), most: text(most) })
}

fn credentials_of(settings: &SourceSettings) -> Result<Option<Credentials>, Fault> {
    let secret = |file: Option<&PathBuf>, env: Option<&String>, both: &'static str| match (file, env) {
        (Some(_), Some(_)) => Err(Fault::Credentials(both)),
        (Some(file), None) => Ok(Some(Secret::of_file(file)?)),
        (None, Some(env)) => Ok(Some(Secret::of_env(env)?)),
        (None, None) => Ok(None),
    };
    let both = "password_file and password_env are both set; keep one";
    let password = secret(settings.password_file.as_ref(), settings.password_env.as_ref(), both)?;
    let both = "token_file and token_env are both set; keep one";
    let token = secret(settings.token_file.as_ref(), settings.token_env.as_ref(), both)?;
    match (settings.username.clone(), password, token) {
        (None, None, token) => Ok(token.map(Credentials::Bearer)),
        (Some(username), Some(password), None) => {
            if username.contains(':') || username.chars().any(char::is_control) {
                return Err(Fault::Credentials(
                    "username has a colon or control character, which HTTP Basic cannot carry",
                ));
            }
            Ok(Some(Credentials::Basic { username, password }))
        }
        (Some(_), None, None) => {
            Err(Fault::Credentials("username is set without a password; add password_file or password_env"))
        }
        (None, Some(_), None) => Err(Fault::Credentials("a password is set without username; add username")),
        (.., Some(_)) => {
            Err(Fault::Credentials("a token is set as well as a username or password; keep one kind of credentials"))
        }
    }
}

/// Names the unknown key where that is why the kind rejected its table, otherwise repeats the kind's message.
fn kind_fault(source: &Source, error: &SettingsError) -> Fault {
    let schema = (source.kind.schema)();
    let own = schema.get("properties").and_then(serde_json::Value::as_object);
    let known: Vec<&str> =
        COMMON_KEYS.into_iter().chain(own.into_iter().flat_map(|own| own.keys().map(String::as_str))).collect();
    match source.settings.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Fault::Key {
            key: key.chars().filter(|c| !c.is_control()).take(64).collect(),
            near: did_you_mean(key, known.iter().copied()),
            known: known.join(", "),
        },
        None => Fault::Own(error.to_string()),
    }
}

/// Time limit of one response where none is configured.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest and longest poll interval: one tick, one hour.
pub(super) const INTERVALS: (Duration, Duration) = (liveqos_core::model::TICK, Duration::from_hours(1));
/// Shortest and longest time limit of one response.
pub(super) const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(30));
#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::testing::{KINDS, settings};

    fn fault(text: &str) -> String {
        Source::new(&settings(text), KINDS).expect_err("refused").to_string()
    }

    #[test]
    fn missing_keys_take_the_defaults_of_the_kind() {
        let source = Source::new(&settings("kind = 'fake'"), KINDS).expect("good");
        assert_eq!((&*source.name, source.shown_url().as_str()), ("fake", "http://127.0.0.1:9/stat"));
        assert_eq!((source.interval, source.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
        assert_eq!(source.media_ports, [1935]);
        assert_eq!(source.credentials, None);
    }

    #[test]
    fn configured_values_override_defaults() {
        let text = "kind = 'fake'\nname = 'a'\nurl = 'http://h:1/x?secret=s'\ninterval = '1s'\ntimeout = '300ms'\nmedia_ports = [80]\npages = 3";
        let written = settings(text);
        let source = Source::new(&written, KINDS).expect("good");
        assert_eq!((&*source.name, source.shown_url().as_str()), ("a", "http://h:1/x"));
        assert_eq!((source.interval, source.timeout), (Duration::from_secs(1), Duration::from_millis(300)));
        assert_eq!(source.media_ports, [80]);
        for shown in [format!("{written:?}"), format!("{source:?}")] {
            assert!(!shown.contains("secret") && shown.contains("http://h:1/x"), "{shown}");
        }
    }

    #[test]
    fn errors_name_the_key_the_value_and_the_fix() {
        for (text, expected) in [
            (
                "kind = 'fak'",
                "source \"fak\": kind = \"fak\" is not supported; did you mean \"fake\"?; known kinds: fake, pushed",
            ),
            (
                "kind = 'fake'\nname = 'a/b'",
                "source \"a/b\": name must be 1 to 128 bytes of printable text without / ? # %; choose another name",
            ),
            (
                "kind = 'fake'\nintervall = '1s'",
                "source \"fake\": unknown key \"intervall\"; did you mean \"interval\"?; known keys: kind, name",
            ),
            ("kind = 'fake'\npagess = 1", "unknown key \"pagess\"; did you mean \"pages\"?"),
            ("kind = 'fake'\npages = 'x'", "source \"fake\": invalid type: string \"x\", expected u32"),
        ] {
            let error = fault(text);
            assert!(error.contains(expected), "{text}\n{error}");
        }
        let twice = [settings("kind = 'fake'"), settings("kind = 'pushed'\nname = 'fake'")];
        let error = Source::all(&twice, KINDS).expect_err("twice").to_string();
        assert!(error.starts_with("source \"fake\": name is used twice; give each"), "{error}");
    }

    #[test]
    fn errors_contain_no_secrets() {
        for (text, expected) in [
            ("kind = 'fake'\ninterval = '1ms'", "interval = \"1ms\" is outside \"250ms\" to \"1h\"; choose one within"),
            ("kind = 'fake'\ntimeout = '1h'", "timeout = \"1h\" is outside \"10ms\" to \"30s\""),
            ("kind = 'fake'\nurl = 'rtmp://h/x'", "url = \"rtmp://h/x\" is neither http nor https; write one such as"),
            (
                "kind = 'fake'\nurl = '127.0.0.1'",
                "url = \"127.0.0.1\" is not a URL (relative URL without a base); write one such as",
            ),
            (
                "kind = 'fake'\nurl = 'http://u:pw@h/'",
                "url = \"http://h/\" carries a user name or password; take them out",
            ),
            ("kind = 'fake'\nusername = 'u'", "username is set without a password; add password_file or password_env"),
            ("kind = 'fake'\npassword_env = 'PATH'", "a password is set without username; add username"),
            ("kind = 'fake'\ntoken_env = 'PATH'\ntoken_file = '/x'", "token_file and token_env are both set; keep one"),
            ("kind = 'fake'\ntoken_file = '/no/such'", "source \"fake\": reading the secret in /no/such: "),
        ] {
            let error = fault(text);
            assert!(error.contains(expected), "{text}\n{error}");
            assert!(!error.contains("pw"), "{error}");
        }
    }

    #[test]
    fn secrets_are_read_from_the_environment() {
        let text = "kind = 'fake'\nusername = 'u'\npassword_env = 'PATH'";
        let source = Source::new(&settings(text), KINDS).expect("good");
        let Some(Credentials::Basic { username, password }) = source.credentials else { panic!("basic") };
        assert_eq!((username.as_str(), password.reveal()), ("u", std::env::var("PATH").expect("set").as_str()));
    }

    #[test]
    fn the_schema_contains_the_common_keys() {
        let schema = schemars::schema_for!(SourceSettings);
        let properties = schema.get("properties").and_then(|value| value.as_object()).expect("properties");
        for key in COMMON_KEYS {
            assert!(properties.contains_key(key), "{key}");
        }
        assert_eq!(properties.len(), COMMON_KEYS.len());
    }
}
