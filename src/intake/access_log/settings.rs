//! What is configured of an access log: where it comes from, how its lines look, where a class's identity lies. Refuses
//! a form that cannot be read, before the log is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use liveqos_core::access_log::{ClassPattern, ClassRule, FormatError, LogFold, LogFormat, PatternError};
use liveqos_core::model::{Name, SourceName};
use liveqos_core::viewer::{GroupRules, ViewerKey};
use schemars::JsonSchema;
use serde::Deserialize;

use super::syslog_socket::{SyslogAddress, loopback};
use crate::platform::cidr::{NetworkError, Networks};
use crate::platform::duration;

/// A `[[logs]]` table: the access log of an edge whose players send CMCD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogSettings {
    /// The log file; or `listen`.
    pub path: PathBuf,
    /// Where its lines come in as syslog datagrams, as nginx sends them: `udp://127.0.0.1:5514` or
    /// `unix:/run/liveqos/access.sock`.
    pub listen: String,
    /// Addresses or networks that may send to `udp://`; without any this machine.
    pub from: Vec<String>,
    /// Receive buffer of `listen`, as far as `net.core.rmem_max` allows; 0 is 8 MiB.
    pub receive_buffer_bytes: usize,
    /// File that keeps how far it was read, so that a restart goes on there; without one each start begins at the log's
    /// end.
    pub position_file: Option<PathBuf>,
    /// Its name in labels and errors, unique; `access-log` without one.
    pub name: String,
    /// nginx's `log_format` as text, where lines are not JSON: `$remote_addr [$time_local] "$request" ...`.
    pub format: String,
    /// Further keys of JSON lines, or variables of `format`: what the log calls it = the nginx variable; `region` is
    /// where the viewer is.
    pub fields: BTreeMap<String, String>,
    /// Proxies before the edge whose `$http_x_forwarded_for` in a line is believed to name the viewer's address:
    /// addresses or networks.
    pub trusted_proxies: Vec<String>,
    /// Where a class's identity is: `path`, `content-id` (CMCD `cid`), `argument:NAME` of the query, or
    /// `pattern:/live/{class}/*.m4s` with `*` for any text without a slash and `/...` at the end for anything.
    pub class: String,
    /// Ports of the edge's listeners, whose connections are looked for in the kernel; without any those that the lines
    /// name (`$server_port`).
    pub ports: Vec<u16>,
    /// Play time of one segment, for lines whose player does not tell it (CMCD `d`); zero: latency is told only where
    /// players tell it.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub segment: Duration,
    /// File with a secret of at least 16 bytes that all nodes of the fleet share: viewers are hashed under it, so that
    /// their counts join over nodes (`viewers_sketch` in the API). Without one the key is new with each start, and no
    /// sketch is made.
    pub viewer_key_file: Option<PathBuf>,
    /// The application's name instead of the one in the path, so that `/hls/c1/7.ts` is the media server's `live/c1`.
    pub app: String,
}

/// Why a log's table is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Its form.
    #[error("log \"{0}\": {1}")]
    Format(String, FormatError),
    /// Its class rule.
    #[error("log \"{0}\": class = \"{1}\" is none of path, content-id, argument:NAME and pattern:/live/{{class}}/...")]
    Class(String, String),
    /// Its pattern.
    #[error("log \"{0}\": class: {1}")]
    Pattern(String, PatternError),
    /// Where it listens.
    #[error("log \"{0}\": listen = \"{1}\" is neither udp://ADDRESS:PORT nor unix:/PATH")]
    Listen(String, String),
    /// Who may send, or which proxies are believed.
    #[error("log \"{0}\": {1}")]
    Networks(String, NetworkError),
    /// Its name.
    #[error("log \"{0}\": name must be 1 to 128 bytes of printable text, and stand once")]
    Name(String),
    /// Neither of the two, or both.
    #[error("log \"{0}\": write either path, the log file's, or listen, where syslog datagrams arrive")]
    Path(String),
    /// A position of something that has none.
    #[error("log \"{0}\": position_file is of log files; datagrams have no position")]
    Position(String),
}

impl AccessLogSettings {
    /// Its name.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        if self.name.is_empty() { "access-log" } else { &self.name }
    }

    /// An empty fold of such a log.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn fold(&self, key: impl Into<ViewerKey>) -> Result<LogFold, LogError> {
        let name = self.shown_name();
        let wrong = |error| LogError::Format(name.to_owned(), error);
        let fields = self.fields.iter().map(|(key, field)| (key.as_str(), field.as_str()));
        let format = match self.format.as_str() {
            "" => LogFormat::json(fields),
            format => LogFormat::text_naming(format, fields),
        };
        let format = format.map_err(wrong)?;
        let rule = match (self.class.as_str(), self.class.strip_prefix("argument:")) {
            ("" | "path", _) => ClassRule::Path(Some(self.app.clone()).filter(|app| !app.is_empty())),
            ("content-id", _) => ClassRule::ContentId,
            (class, _) if class.starts_with("pattern:") => {
                let pattern = ClassPattern::new(&class["pattern:".len()..], &self.app);
                ClassRule::Pattern(pattern.map_err(|error| LogError::Pattern(name.to_owned(), error))?)
            }
            (_, Some(argument)) if !argument.is_empty() => ClassRule::Argument(argument.to_owned()),
            (other, _) => return Err(LogError::Class(name.to_owned(), other.to_owned())),
        };
        let checked = Name::new(name).map_err(|_| LogError::Name(name.to_owned()))?;
        let play_time = Some(self.segment).filter(|segment| !segment.is_zero());
        let key = key.into();
        let fold = LogFold::new(format, rule, SourceName::from(checked.as_str()), key).with_play_time(play_time);
        Ok(fold.grouped_by(self.group_rules(key.words())?))
    }

    /// How viewers are grouped, networks hashed under `key`.
    ///
    /// # Errors
    /// [`LogError::Networks`].
    pub fn group_rules(&self, key: [u64; 2]) -> Result<GroupRules, LogError> {
        let proxies = Networks::read("trusted_proxies", &self.trusted_proxies);
        let proxies = proxies.map_err(|error| LogError::Networks(self.shown_name().to_owned(), error))?;
        Ok(GroupRules { key, trusted_proxies: proxies.all().to_vec() })
    }
}

/// Where a log comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// A file that grows.
    File(PathBuf),
    /// Datagrams.
    Syslog(SyslogAddress),
    /// Nowhere: a fold for posts alone.
    Posts,
}

impl AccessLogSettings {
    /// A log without lines, for posts where no log is configured: their class is what CMCD calls content id.
    #[must_use]
    pub fn of_posts() -> Self {
        Self { name: POSTS.to_owned(), class: "content-id".to_owned(), ..Self::default() }
    }

    /// Where its lines come from.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn source(&self) -> Result<LogSource, LogError> {
        let name = self.shown_name().to_owned();
        match (self.path.as_os_str().is_empty(), self.listen.is_empty()) {
            (false, true) => Ok(LogSource::File(self.path.clone())),
            (true, false) if self.position_file.is_some() => Err(LogError::Position(name)),
            (true, false) => {
                let address = SyslogAddress::parse(&self.listen);
                Ok(LogSource::Syslog(address.ok_or_else(|| LogError::Listen(name, self.listen.clone()))?))
            }
            (true, true) if name == POSTS => Ok(LogSource::Posts),
            _ => Err(LogError::Path(name)),
        }
    }

    /// Its kind and URL in the status of sources.
    #[must_use]
    pub fn status_kind_and_url(&self) -> (&'static str, String) {
        match self.source() {
            Ok(LogSource::Syslog(address)) => ("syslog", address.to_string()),
            Ok(LogSource::Posts) => (POSTS, "/v1/cmcd".to_owned()),
            _ => ("access-log", self.path.display().to_string()),
        }
    }

    /// Who may send datagrams.
    ///
    /// # Errors
    /// [`LogError::Networks`].
    pub fn senders(&self) -> Result<Networks, LogError> {
        let from = if self.from.is_empty() { loopback() } else { self.from.clone() };
        Networks::read("from", &from).map_err(|error| LogError::Networks(self.shown_name().to_owned(), error))
    }

    /// The receive buffer to ask the kernel for.
    #[must_use]
    pub const fn buffer_bytes(&self) -> usize {
        if self.receive_buffer_bytes == 0 { DEFAULT_BUFFER } else { self.receive_buffer_bytes }
    }
}

/// Checks all tables.
///
/// # Errors
/// The first [`LogError`].
pub(crate) fn check(logs: &[AccessLogSettings]) -> Result<(), LogError> {
    for (index, log) in logs.iter().enumerate() {
        let name = log.shown_name();
        log.fold([0, 0])?;
        log.senders()?;
        if log.source()? == LogSource::Posts {
            return Err(LogError::Path(name.to_owned()));
        }
        if logs[..index].iter().any(|other| other.shown_name() == name) {
            return Err(LogError::Name(name.to_owned()));
        }
    }
    Ok(())
}

impl AccessLogSettings {
    /// The key of viewers' hashes: the fleet's where a file has one, else a new one.
    ///
    /// # Errors
    /// When the file cannot be read or is too short, or the system has no randomness.
    pub fn viewer_key(&self) -> anyhow::Result<ViewerKey> {
        let Some(path) = &self.viewer_key_file else {
            return random_key().map(ViewerKey::Own);
        };
        let secret = std::fs::read(path).with_context(|| format!("reading viewer_key_file {}", path.display()))?;
        let secret = secret.trim_ascii();
        anyhow::ensure!(
            secret.len() >= LEAST_SECRET,
            "viewer_key_file {} has {} bytes; write at least {LEAST_SECRET}, the same on all nodes",
            path.display(),
            secret.len()
        );
        let digest = ring::digest::digest(&ring::digest::SHA256, secret);
        let (words, _) = digest.as_ref().as_chunks::<8>();
        Ok(ViewerKey::Fleet([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]))
    }
}

/// The key of the hashes that stand for viewers' networks: the fleet's of the first log that has one, so that one
/// network is called the same on all nodes; else a new one.
///
/// # Errors
/// As [`AccessLogSettings::viewer_key`].
pub(crate) fn group_key(logs: &[AccessLogSettings]) -> anyhow::Result<[u64; 2]> {
    match logs.iter().find(|log| log.viewer_key_file.is_some()) {
        Some(log) => log.viewer_key().map(ViewerKey::words),
        None => random_key(),
    }
}

/// Fewest bytes of the fleet's secret.
const LEAST_SECRET: usize = 16;

/// A key for the hashes of viewers, new in each process.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn random_key() -> anyhow::Result<[u64; 2]> {
    let bytes: [u8; 16] = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| anyhow::anyhow!("no randomness for the key of viewers' hashes"))?
        .expose();
    let key = u128::from_ne_bytes(bytes);
    Ok([key as u64, (key >> 64) as u64])
}

/// Name of the fold of posts where no log is configured.
pub(crate) const POSTS: &str = "cmcd";
const DEFAULT_BUFFER: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> AccessLogSettings {
        toml::from_str(text).expect("toml")
    }

    #[test]
    fn the_fleets_key_is_the_same_on_all_nodes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("viewer.key");
        let log = AccessLogSettings { viewer_key_file: Some(path.clone()), ..AccessLogSettings::default() };
        assert!(format!("{:#}", log.viewer_key().expect_err("no file")).contains("reading viewer_key_file"));
        std::fs::write(&path, "short").expect("written");
        assert!(log.viewer_key().expect_err("short").to_string().contains("at least 16"));
        std::fs::write(&path, "a secret of sixteen\n").expect("written");
        let key = log.viewer_key().expect("a key");
        std::fs::write(&path, "a secret of sixteen").expect("written");
        assert_eq!(log.viewer_key().expect("a key"), key);
        assert!(matches!(key, ViewerKey::Fleet(_)));
        assert!(matches!(AccessLogSettings::default().viewer_key().expect("a key"), ViewerKey::Own(_)));
    }

    #[test]
    fn errors_name_the_log_and_what_to_do() {
        for (text, says) in [
            ("path = 'x'\nclass = 'host'", "class = \"host\" is none of path"),
            ("path = 'x'\nname = 'a'\nformat = '$uri'", "log \"a\": reading log_format: none of $msec"),
            ("path = 'x'\nfields = { when = 'tim' }", "\"tim\" is no field"),
            ("name = 'a'", "log \"a\": write either path"),
            ("name = 'cmcd'", "write either path"),
            ("path = 'x'\nlisten = 'udp://127.0.0.1:1'", "write either path"),
            ("listen = 'tcp://127.0.0.1:1'", "neither udp://"),
            ("listen = 'udp://127.0.0.1:1'\nposition_file = 'p'", "datagrams have no position"),
            ("listen = 'udp://127.0.0.1:1'\nfrom = ['x']", "from: \"x\" is neither"),
            ("path = 'x'\ntrusted_proxies = ['lb']", "trusted_proxies: \"lb\" is neither"),
            ("path = 'x'\nclass = 'pattern:/live/*'", "a pattern has {class} once"),
        ] {
            let error = check(&[log(text)]).expect_err("refused").to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(check(&[log("path = 'x'"), log("path = 'y'")]).is_err(), "one name twice");
        assert_eq!(check(&[log("path = 'x'\nclass = 'argument:session_id'")]), Ok(()));
    }
}
