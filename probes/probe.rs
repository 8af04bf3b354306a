//! The contract of an adapter: which requests to make, and what the answers mean. It has no socket and no clock, so
//! every saved answer of a server is a test; time-outs, sizes and schedule are the shell's.

use std::time::Duration;

use liveqos_core::base::fnv1a;
use liveqos_core::model::{Fact, Observation, SourceName, StreamKey, Timestamp};

/// One configured source of one kind.
pub trait Probe: Send {
    /// The first requests of a round, relative to the source's base URL; none for sources that are only pushed to.
    fn ask(&mut self) -> Vec<Request>;

    /// Reads one reply. Observations go to `out`; further requests of the same round (the next page) are returned. The
    /// shell limits a round to [`MAX_ROUND`] requests.
    ///
    /// # Errors
    /// [`ProbeError`]: what was wrong and where. What was read before it stands.
    fn read(&mut self, reply: &Reply<'_>, out: &mut Vec<Observation>) -> Result<Vec<Request>, ProbeError>;

    /// Reads one hook body that the media server posted to `/v1/hooks/{server}`.
    ///
    /// # Errors
    /// [`ProbeError`]; the server is answered with success all the same, since a refused hook would end a class.
    fn read_hook(&mut self, hook: &Hook<'_>, out: &mut Vec<Observation>) -> Result<(), ProbeError> {
        let _: (&Hook<'_>, &mut Vec<Observation>) = (hook, out);
        Err(ProbeError::NoHooks)
    }
}

/// Most requests of one round, including further pages.
pub const MAX_ROUND: usize = 64;

/// An HTTP GET to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Path and query below the source's base URL, beginning with `/`, or empty for the base URL itself.
    pub path: String,
    /// The probe's own tag, given back with the reply.
    pub tag: u32,
}

/// The answer to a [`Request`], with status 2xx and within the size limit.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The source that answered.
    pub source: &'a SourceName,
    /// The request's tag.
    pub tag: u32,
    /// When the request was sent.
    pub asked_at: Timestamp,
    /// The body.
    pub body: &'a [u8],
}

/// A body that a media server posted.
#[derive(Clone, Copy, Debug)]
pub struct Hook<'a> {
    /// The source it belongs to.
    pub source: &'a SourceName,
    /// When it arrived.
    pub at: Timestamp,
    /// The query of the posted URL.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// How a source delivers its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// The shell polls it.
    Poll,
    /// It posts to the daemon.
    Push,
}

/// A kind of source: an entry of [`crate::KINDS`].
pub struct Kind {
    /// Its name in the configuration, in `/v1/hooks/{name}` and in metrics: lower case, with hyphens.
    pub name: &'static str,
    /// One line for the reference.
    pub about: &'static str,
    /// How it delivers its data.
    pub intake: Intake,
    /// Its base URL where none is configured.
    pub default_url: &'static str,
    /// How often it is polled where nothing is configured.
    pub default_interval: Duration,
    /// Ports on which it serves viewers over TCP, to attribute the kernel's connections.
    pub media_ports: &'static [u16],
    /// Names of its process, for discovery.
    pub processes: &'static [&'static str],
    /// Further paths on which its status interface is usually found, for discovery.
    pub status_paths: &'static [&'static str],
    /// How to enable the server's status interface, as lines of text that discovery prints.
    pub how_to_enable: &'static [&'static str],
    /// The response body that the server takes for a successful hook.
    pub hook_success: &'static str,
    /// Builds the probe from the source's own table.
    ///
    /// # Errors
    /// Unknown keys and invalid values are refused.
    pub build: fn(toml::Table) -> Result<Box<dyn Probe>, SettingsError>,
    /// The JSON Schema of the source's own table.
    pub schema: fn() -> schemars::Schema,
}

/// The source's own table does not fit its kind.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// Why an answer could not be read. The text names the place; [`ProbeError::reason`] is the metric label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The body is not what this server sends.
    #[error("reading {what}: {detail}")]
    Malformed {
        /// Which answer.
        what: &'static str,
        /// What was wrong, and where.
        detail: String,
    },
    /// The server answered with an error of its own.
    #[error("{what} answered with error {code}: {detail}")]
    Refused {
        /// Which answer.
        what: &'static str,
        /// The server's code.
        code: i64,
        /// The server's message, where it sent one.
        detail: String,
    },
    /// This kind takes no hooks.
    #[error("this kind of source does not support hooks")]
    NoHooks,
}

impl ProbeError {
    /// The value of the label `reason`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Refused { .. } => "refused",
            Self::NoHooks => "no_hooks",
        }
    }
}

/// An observation of `stream` by the source of `reply`.
pub(crate) fn observed(reply: &Reply<'_>, stream: StreamKey, fact: Fact) -> Observation {
    Observation { source: reply.source.clone(), stream, at: reply.asked_at, fact }
}

/// The error of an answer that this server does not send. The detail may quote the answer, so it is cut to
/// [`MAX_DETAIL`] characters.
pub(crate) fn malformed(what: &'static str, detail: &dyn std::fmt::Display) -> ProbeError {
    let detail = detail.to_string().chars().take(MAX_DETAIL).collect();
    ProbeError::Malformed { what, detail }
}

/// Most characters of an error's detail.
const MAX_DETAIL: usize = 200;

/// A 64-bit identity of a counter's base from what changes with it (FNV-1a: stable across builds and machines).
pub(crate) fn base_of(parts: &[&str]) -> u64 {
    fnv1a(parts.iter().flat_map(|part| part.bytes().chain([0])))
}
