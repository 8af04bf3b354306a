//! The JSON of SRS's answers and hooks, as far as it is used. Decides what is an error envelope (SRS sends it with HTTP
//! 200), and how protocols and streams are named; unknown fields are ignored.

use std::net::IpAddr;
use std::time::Duration;

use liveqos_core::model::{NameError, Protocol, StreamKey};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::probe::{ProbeError, malformed};

/// Every answer: `code` 0 and the payload under its own name, or another code and no payload.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    code: i64,
    /// New at each start of the server.
    #[serde(default, deserialize_with = "id")]
    service: String,
    #[serde(default, deserialize_with = "id")]
    pid: String,
    /// Of `/api/v1/streams/`.
    pub(super) streams: Option<Vec<Stream>>,
    /// Of `/api/v1/clients/`.
    pub(super) clients: Option<Vec<ApiClient>>,
    /// Of `/api/v1/vhosts/`.
    pub(super) vhosts: Option<Vec<Vhost>>,
    /// Of `/api/v1/versions`.
    pub(super) data: Option<Version>,
}

/// What every answer has, including error envelopes.
#[derive(Debug, Deserialize)]
struct Envelope {
    code: i64,
}

/// One entry of `/api/v1/streams/`.
#[derive(Debug, Deserialize)]
pub(super) struct Stream {
    #[serde(deserialize_with = "id")]
    pub(super) id: String,
    name: String,
    app: String,
    /// An id, not a name.
    #[serde(default, deserialize_with = "id")]
    pub(super) vhost: String,
    /// `/app/name`, after the vhost's name where that is not the default.
    #[serde(default)]
    url: String,
    /// Connections, including the publisher.
    pub(super) clients: Option<u32>,
    /// Since 7.0.122 audio and video together.
    pub(super) frames: Option<u64>,
    /// Since 7.0.122.
    pub(super) video_frames: Option<u64>,
    pub(super) send_bytes: Option<u64>,
    pub(super) recv_bytes: Option<u64>,
    pub(super) publish: Option<Publish>,
}

/// `publish` of a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish {
    pub(super) active: bool,
    /// The publisher's client id.
    #[serde(deserialize_with = "id")]
    pub(super) cid: String,
}

/// One entry of `/api/v1/clients/`: publishers and viewers alike.
#[derive(Debug, Deserialize)]
pub(super) struct ApiClient {
    #[serde(deserialize_with = "id")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "id")]
    pub(super) stream: String,
    #[serde(default)]
    ip: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    pub(super) publish: bool,
    /// Seconds since it connected.
    alive: Option<f64>,
}

/// One entry of `/api/v1/vhosts/`.
#[derive(Debug, Deserialize)]
pub(super) struct Vhost {
    #[serde(deserialize_with = "id")]
    pub(super) id: String,
    pub(super) name: String,
}

/// `data` of `/api/v1/versions`; ordered as releases are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) revision: u32,
}

/// A body that SRS posts to a hook.
#[derive(Debug, Deserialize)]
pub(super) struct HookBody {
    pub(super) action: String,
    #[serde(default, deserialize_with = "id")]
    pub(super) client_id: String,
    #[serde(default)]
    pub(super) vhost: String,
    #[serde(default)]
    pub(super) app: String,
    #[serde(default)]
    pub(super) stream: String,
    #[serde(default, rename = "tcUrl")]
    pub(super) tc_url: String,
    /// The query: with a leading `?` from RTMP, HTTP-FLV and HLS, without one from WebRTC and SRT.
    #[serde(default)]
    pub(super) param: String,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`ProbeError::Malformed`] when it is not such JSON (a redirect's text, a truncated body),
    /// [`ProbeError::Refused`] when its code is not 0.
    pub(super) fn read(what: &'static str, body: &[u8]) -> Result<Self, ProbeError> {
        let answer: Result<Self, _> = serde_json::from_slice(body);
        let code = match &answer {
            Ok(answer) => answer.code,
            // An error envelope may contain anything beside its code.
            Err(_) => serde_json::from_slice::<Envelope>(body).map_or(0, |envelope| envelope.code),
        };
        if code != 0 {
            let detail = String::new();
            return Err(ProbeError::Refused { what, code, detail });
        }
        answer.map_err(|error| malformed(what, &error))
    }

    /// Which run of which server answered; part of every counter's base.
    pub(super) fn instance(&self) -> String {
        format!("{}:{}", self.service, self.pid)
    }
}

impl Stream {
    /// The stream's key; `vhost` is the name of its vhost where that is known, else it is read from the URL.
    ///
    /// # Errors
    /// [`NameError`] of the joined name.
    pub(super) fn key(&self, vhost: Option<&str>) -> Result<StreamKey, NameError> {
        let path = format!("/{}/{}", self.app, self.name);
        StreamKey::new(vhost.or_else(|| self.url.strip_suffix(&path)), &self.app, &self.name)
    }

    /// Whether a publisher is connected.
    pub(super) fn active(&self) -> bool {
        self.publish.as_ref().is_some_and(|publish| publish.active)
    }

    /// The publisher's client id, empty where there is none.
    pub(super) fn publisher(&self) -> &str {
        self.publish.as_ref().map_or("", |publish| &publish.cid)
    }
}

impl ApiClient {
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.ip.parse().ok().map(|address: IpAddr| address.to_canonical())
    }

    /// Time since it connected.
    pub(super) fn age(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.alive?).ok()
    }

    /// How it is connected, by `type`.
    pub(super) fn protocol(&self) -> Protocol {
        match self.kind.as_str() {
            "rtmp-play" | "fmle-publish" | "flash-publish" | "haivision-publish" => Protocol::Rtmp,
            "flv-play" => Protocol::HttpFlv,
            "hls-play" => Protocol::Hls,
            "rtc-play" | "rtc-publish" => Protocol::Webrtc,
            "srt-play" | "srt-publish" => Protocol::Srt,
            _ => Protocol::Mixed,
        }
    }
}

impl HookBody {
    /// How a publisher connects, where the hook shows it: by the scheme of `tcUrl`, or for WebRTC by its absence
    /// together with the `app` and `stream` that only its query repeats.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        let scheme = self.tc_url.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "rtmp" | "rtmps" => Some(Protocol::Rtmp),
            "srt" => Some(Protocol::Srt),
            "webrtc" => Some(Protocol::Webrtc),
            "" if self.param.starts_with("app=") && self.param.contains("&stream=") => Some(Protocol::Webrtc),
            _ => None,
        }
    }
}

impl Version {
    pub(super) const fn new(major: u32, minor: u32, revision: u32) -> Self {
        Self { major, minor, revision }
    }
}

/// An id: a string, or a number as in 3.x and early 4.x.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Id;

    impl Visitor<'_> for Id {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an id")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_i64<E>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_unit<E>(self) -> Result<String, E> {
            Ok(String::new())
        }
    }

    deserializer.deserialize_any(Id)
}
