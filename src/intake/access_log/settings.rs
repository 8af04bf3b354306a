//! The `[[logs]]` table of the configuration: where a log comes from, what its lines look like, and where the class's
//! identity is. Invalid settings are rejected before the log is opened.

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
    /// Path of the log file; set either this or `listen`.
    pub path: PathBuf,
    /// Address for syslog datagrams with lines, as nginx sends them: `udp://127.0.0.1:5514` or
    /// `unix:/run/liveqos/access.sock`.
    pub listen: String,
    /// Addresses or networks that may send to `udp://`; the default is this machine.
    pub from: Vec<String>,
    /// Receive buffer of `listen` in bytes, as far as `net.core.rmem_max` allows; 0 is 8 MiB.
    pub receive_buffer_bytes: usize,
    /// File for the position in the log, so that reading continues there after a restart; without one each start begins
    /// at the log's end.
    pub position_file: Option<PathBuf>,
    /// Unique name in labels and errors; the default is `access-log`.
    pub name: String,
    /// nginx's `log_format` as text, if lines are not JSON: `$remote_addr [$time_local] "$request" ...`.
    pub format: String,
    /// Further keys of JSON lines or variables of `format`: the name in the log = the nginx variable; `region` is where
    /// the viewer is.
    pub fields: BTreeMap<String, String>,
    /// Proxies in front of the edge, as addresses or networks, whose `$http_x_forwarded_for` in a line is trusted to
    /// contain the viewer's address.
    pub trusted_proxies: Vec<String>,
    /// Where the class's identity is: `path`, `content-id` (CMCD `cid`), `argument:NAME` of the query, or
    /// `pattern:/live/{class}/*.m4s` with `*` for any text without a slash and `/...` at the end for anything.
    pub class: String,
    /// Ports of the edge's listeners, whose connections are looked up in the kernel; the default is the ports that
    /// lines contain (`$server_port`).
    pub ports: Vec<u16>,
    /// Play time of one segment, for lines whose player does not send it (CMCD `d`); with zero, latency is reported
    /// only where players send it.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub segment: Duration,
    /// File with a secret of at least 16 bytes that all nodes of the fleet share: viewers are hashed with it, so that
    /// their counts can be merged over nodes (`viewers_sketch` in the API). Without one each start makes a new key, and
    /// there is no sketch.
    pub viewer_key_file: Option<PathBuf>,
    /// Application name that replaces the one in the path, so that `/hls/c1/7.ts` is the media server's `live/c1`.
    pub app: String,
}

/// What is wrong with a `[[logs]]` table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The format is invalid.
    #[error("log \"{0}\": {1}")]
    Format(String, FormatError),
    /// The class rule is invalid.
    #[error("log \"{0}\": class = \"{1}\" is none of path, content-id, argument:NAME and pattern:/live/{{class}}/...")]
    Class(String, String),
    /// The class pattern is invalid.
    #[error("log \"{0}\": class: {1}")]
    Pattern(String, PatternError),
    /// The listen address is invalid.
    #[error("log \"{0}\": listen = \"{1}\" is neither udp://ADDRESS:PORT nor unix:/PATH")]
    Listen(String, String),
    /// An address or network of senders or proxies is invalid.
    #[error("log \"{0}\": {1}")]
    Networks(String, NetworkError),
    /// The name is invalid or not unique.
    #[error("log \"{0}\": name must be 1 to 128 bytes of printable text, and unique")]
    Name(String),
    /// Neither `path` nor `listen` is set, or both are.
    #[error("log \"{0}\": set either path (a log file) or listen (an address for syslog datagrams)")]
    Path(String),
    /// A position file for datagrams, which have no position.
    #[error("log \"{0}\": position_file is for log files; datagrams have no position")]
    Position(String),
}

impl AccessLogSettings {
    /// The name, or the default.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        if self.name.is_empty() { "access-log" } else { &self.name }
    }

    /// An empty fold for this log.
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

    /// How viewers are grouped; networks are hashed with `key`.
    ///
    /// # Errors
    /// [`LogError::Networks`].
    pub fn group_rules(&self, key: [u64; 2]) -> Result<GroupRules, LogError> {
        let proxies = Networks::read("trusted_proxies", &self.trusted_proxies);
        let proxies = proxies.map_err(|error| LogError::Networks(self.shown_name().to_owned(), error))?;
        Ok(GroupRules { key, trusted_proxies: proxies.all().to_vec() })
    }
}

/// Where a log's lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// A growing file.
    File(PathBuf),
    /// Syslog datagrams.
    Syslog(SyslogAddress),
    /// No lines: a fold for event reports only.
    Posts,
}

impl AccessLogSettings {
    /// A log without lines, for event reports where no log is configured. Their class is the content id (CMCD `cid`).
    #[must_use]
    pub fn of_posts() -> Self {
        Self { name: POSTS.to_owned(), class: "content-id".to_owned(), ..Self::default() }
    }

    /// Where the lines come from.
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

    /// The kind and URL in the status of sources.
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

    /// The receive buffer to request from the kernel, in bytes.
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
    /// The key of viewers' hashes: made from the fleet's secret where a file has one, otherwise random.
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

/// The key of the hashes of viewers' networks, so that a network has the same name on all nodes: that of the first log
/// with a fleet's secret, otherwise random.
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

/// A random key for the hashes of viewers.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn random_key() -> anyhow::Result<[u64; 2]> {
    let bytes: [u8; 16] = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| anyhow::anyhow!("the system has no randomness for the key of viewers' hashes"))?
        .expose();
    let key = u128::from_ne_bytes(bytes);
    Ok([key as u64, (key >> 64) as u64])
}

/// Name of the log without lines, for event reports where no log is configured.
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
    fn errors_name_the_log_and_the_fix() {
        for (text, expected) in [
            ("path = 'x'\nclass = 'host'", "class = \"host\" is none of path"),
            ("path = 'x'\nname = 'a'\nformat = '$uri'", "log \"a\": reading log_format: none of $msec"),
            ("path = 'x'\nfields = { when = 'tim' }", "\"tim\" is not a known field"),
            ("name = 'a'", "log \"a\": set either path"),
            ("name = 'cmcd'", "set either path"),
            ("path = 'x'\nlisten = 'udp://127.0.0.1:1'", "set either path"),
            ("listen = 'tcp://127.0.0.1:1'", "neither udp://"),
            ("listen = 'udp://127.0.0.1:1'\nposition_file = 'p'", "datagrams have no position"),
            ("listen = 'udp://127.0.0.1:1'\nfrom = ['x']", "from: \"x\" is neither"),
            ("path = 'x'\ntrusted_proxies = ['lb']", "trusted_proxies: \"lb\" is neither"),
            ("path = 'x'\nclass = 'pattern:/live/*'", "a pattern must contain {class} exactly once"),
        ] {
            let error = check(&[log(text)]).expect_err("refused").to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(check(&[log("path = 'x'"), log("path = 'y'")]).is_err(), "the same name twice");
        assert_eq!(check(&[log("path = 'x'\nclass = 'argument:session_id'")]), Ok(()));
    }
}
