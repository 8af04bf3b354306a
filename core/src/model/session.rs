//! What is watched: the class (session), its stream, and the legs its media takes. Decides which names are valid: not
//! empty, not too long, without control characters.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::trace_parent::TraceParent;
use super::trace_state::TraceState;

/// Longest identifier, in bytes; longer ones are refused, since each becomes a label and an attribute.
pub const MAX_NAME_BYTES: usize = 128;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was left after trimming.
    #[error("name is empty")]
    Empty,
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("name of {0} bytes is longer than {MAX_NAME_BYTES}")]
    TooLong(usize),
    /// A control character at this byte.
    #[error("name has a control character at byte {0}")]
    Control(usize),
}

/// A short, printable identifier from outside: at most [`MAX_NAME_BYTES`] bytes, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// Validates `text`, with surrounding blanks removed.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or contains a control character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(text.len()));
        }
        match text.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, _)) => Err(NameError::Control(at)),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// One stream on a node, `app/name` or `vhost/app/name`: without the default vhost, the file extension and the query,
/// so that it is the same for every server and protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamKey(Name);

impl StreamKey {
    /// The key of stream `name` in application `app`; `vhost` only where it is not the server's default.
    ///
    /// ```
    /// use liveqos_core::model::StreamKey;
    /// let key = StreamKey::new(None, "live", "class101.m3u8?session_id=s1").unwrap();
    /// assert_eq!(key.as_str(), "live/class101");
    /// ```
    ///
    /// # Errors
    /// [`NameError`] of the joined text.
    pub fn new(vhost: Option<&str>, app: &str, name: &str) -> Result<Self, NameError> {
        let name = name.split(['?', '#']).next().unwrap_or_default();
        let name = EXTENSIONS.iter().find_map(|extension| name.strip_suffix(extension)).unwrap_or(name);
        if name.trim().is_empty() {
            return Err(NameError::Empty);
        }
        let app = app.trim_matches('/');
        let vhost = vhost.filter(|vhost| !vhost.is_empty() && *vhost != DEFAULT_VHOST);
        let text = match (vhost, app.is_empty()) {
            (Some(vhost), _) => format!("{vhost}/{app}/{name}"),
            (None, false) => format!("{app}/{name}"),
            (None, true) => name.to_owned(),
        };
        Name::new(&text).map(Self)
    }

    /// The key as the platform writes it, already of the form `app/name`.
    ///
    /// # Errors
    /// [`NameError`] of the text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.trim().trim_start_matches('/').rsplit_once('/') {
            Some((app, name)) => Self::new(None, app, name),
            None => Self::new(None, "", text.trim()),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The key of what is identified by its session alone, as players' reports are.
    #[must_use]
    pub const fn of_session(id: Name) -> Self {
        Self(id)
    }

    /// The stream's own name, without vhost and application.
    #[must_use]
    pub fn last_part(&self) -> Option<Self> {
        let (_, last) = self.as_str().rsplit_once('/')?;
        Name::new(last).ok().map(Self)
    }

    /// The key as a name: the session's id where the platform reports none.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.0
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How media is delivered on a leg; its text is in lower case, as for OpenTelemetry's `network.protocol.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Real-Time Messaging Protocol.
    Rtmp,
    /// FLV over one long HTTP response.
    HttpFlv,
    /// HTTP Live Streaming (RFC 8216).
    Hls,
    /// MPEG-DASH.
    Dash,
    /// WebRTC (RFC 8825).
    Webrtc,
    /// Secure Reliable Transport.
    Srt,
    /// RTSP (RFC 7826).
    Rtsp,
    /// Several protocols that the server does not distinguish.
    Mixed,
}

impl Protocol {
    /// The label text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::HttpFlv => "http-flv",
            Self::Hls => "hls",
            Self::Dash => "dash",
            Self::Webrtc => "webrtc",
            Self::Srt => "srt",
            Self::Rtsp => "rtsp",
            Self::Mixed => "mixed",
        }
    }
}

/// One side of a node: media coming in from the publisher, or going out to viewers by one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// Publisher to node.
    Ingest,
    /// Node to viewers.
    Egress(Protocol),
}

impl Leg {
    /// The value of the `leg` label: `ingest`, or the protocol to the viewers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Egress(protocol) => protocol.as_str(),
        }
    }
}

/// What the class is for: the platform's `education.scenario`, which decides sampling and objectives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// A live lesson.
    #[default]
    LiveTeaching,
    /// An invigilated examination.
    Exam,
    /// Submission of homework.
    HomeworkSubmit,
    /// Learning behaviour.
    LearningBehavior,
    /// Playback of a recorded video.
    VideoPlayback,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::LiveTeaching, Self::Exam, Self::HomeworkSubmit, Self::LearningBehavior, Self::VideoPlayback];

    /// The attribute text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LiveTeaching => "live_teaching",
            Self::Exam => "exam",
            Self::HomeworkSubmit => "homework_submit",
            Self::LearningBehavior => "learning_behavior",
            Self::VideoPlayback => "video_playback",
        }
    }

    /// The scenario of this attribute text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == text)
    }
}

/// A session as all later stages know it: fixed when it opens, so that its trace, labels and notices agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// The class's id: the platform's where it reported one, else the stream's key.
    pub id: Name,
    /// The stream that carries it on this node.
    pub stream: StreamKey,
    /// The course the class belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub course_id: Option<Name>,
    /// The teacher's pseudonymous id, as the platform gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_id: Option<Name>,
    /// What the class is for.
    pub scenario: Scenario,
    /// Students expected, as the platform reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub student_count: Option<u32>,
    /// The platform's trace context; where present its trace id is the session's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<TraceParent>,
    /// The `tracestate` of that context, passed on with every span; none without a trace parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_state: Option<TraceState>,
    /// The protocol the publisher uses, where a server reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_type: Option<Protocol>,
}

const DEFAULT_VHOST: &str = "__defaultVhost__";
const EXTENSIONS: [&str; 4] = [".m3u8", ".flv", ".mpd", ".ts"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(Name::new("  s1 ").map(|name| name.to_string()), Ok("s1".to_owned()));
        assert_eq!(Name::new(" "), Err(NameError::Empty));
        assert_eq!(Name::new(&"x".repeat(129)), Err(NameError::TooLong(129)));
        assert_eq!(Name::new("a\nb"), Err(NameError::Control(1)));
    }

    #[test]
    fn every_server_gives_a_stream_the_same_key() {
        let keys = [
            StreamKey::new(None, "live", "class101"),
            StreamKey::new(Some("__defaultVhost__"), "live", "class101.flv"),
            StreamKey::new(Some(""), "/live/", "class101.m3u8?hls_ctx=1"),
            StreamKey::parse("/live/class101"),
        ];
        for key in keys {
            assert_eq!(key.expect("a good key").as_str(), "live/class101");
        }
        assert_eq!(StreamKey::new(None, "live", "?x=1"), Err(NameError::Empty));
        assert_eq!(StreamKey::new(Some("v.example"), "live", "c").expect("a good key").as_str(), "v.example/live/c");
    }

    #[test]
    fn scenarios_read_back() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::parse(scenario.as_str()), Some(scenario));
        }
        assert_eq!(Scenario::parse("party"), None);
    }
}
