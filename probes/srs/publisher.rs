//! What is remembered of one SRS stream between rounds, and how its answers become a view. Decides when the frame
//! counter is a measurement: a zero or a standing counter may only mean that this server does not count.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use liveqos_core::model::{Client, Protocol, ServerView, Timestamp, Total};

use super::answer::{ApiClient, Stream, Version};
use crate::probe::base_of;

/// The present publisher of one stream.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    client_id: String,
    /// When the publisher connected, as first derived.
    started: Option<Timestamp>,
    protocol: Option<Protocol>,
    /// The frame counter when this publisher was first seen.
    frames_before: u64,
    /// Whether the counter has moved since, so that this server does count.
    frames_moved: bool,
}

/// The client list of a round.
#[derive(Debug)]
pub(super) struct Listed {
    /// When the request was sent.
    pub(super) asked_at: Timestamp,
    /// Connections by stream id.
    pub(super) by_stream: BTreeMap<String, Vec<ApiClient>>,
    /// It was as long as requested: some clients may be missing.
    pub(super) cut: bool,
}

/// What all streams of a round share.
#[derive(Debug)]
pub(super) struct Common<'a> {
    pub(super) instance: &'a str,
    pub(super) version: Option<Version>,
    pub(super) clients: Option<&'a Listed>,
    /// Addresses that are not viewers.
    pub(super) not_viewers: &'a [IpAddr],
    /// The list of streams may be incomplete.
    pub(super) partial: bool,
}

impl Publisher {
    /// The protocol of publisher `client_id`, where it is this stream's.
    pub(super) fn protocol_of(&self, client_id: &str) -> Option<Protocol> {
        self.protocol.filter(|_| !client_id.is_empty() && self.client_id == client_id)
    }

    /// The view of `stream`, remembering what the next round needs.
    pub(super) fn view(&mut self, stream: &Stream, common: &Common<'_>) -> ServerView {
        let connections = common.clients.map(|listed| listed.by_stream.get(&stream.id).map_or(&[][..], Vec::as_slice));
        self.follow(stream, common);
        let base = base_of(&["srs", common.instance, &stream.id]);
        let total = |value: Option<u64>| value.map(|value| Total { base, value });
        let viewers = match connections {
            Some(connections) => Some(by_protocol(connections, common.not_viewers)),
            None => stream.clients.map(|all| {
                let viewers = all.saturating_sub(u32::from(stream.active()));
                if viewers == 0 { Vec::new() } else { vec![(Protocol::Mixed, viewers)] }
            }),
        };
        let webrtc = self.protocol == Some(Protocol::Webrtc)
            || viewers.iter().flatten().any(|(protocol, _)| *protocol == Protocol::Webrtc);
        ServerView {
            publishing: stream.publish.as_ref().map(|publish| publish.active),
            started: self.started,
            ingest_protocol: self.protocol,
            ingest_bytes: total(stream.recv_bytes).filter(|_| stream.active()),
            ingest_frames: self.frames(stream, common),
            egress_bytes: total(stream.send_bytes),
            bytes_step: if webrtc { WEBRTC_BYTES_STEP } else { BYTES_STEP },
            frames_step: FRAMES_STEP,
            declared_fps: None,
            viewers,
            dropped_messages: None,
            clients: self.connections(connections.unwrap_or_default(), common),
            partial: common.partial || common.clients.is_some_and(|listed| listed.cut),
        }
    }

    /// Notes the publisher; a new one begins anew.
    fn follow(&mut self, stream: &Stream, common: &Common<'_>) {
        let publisher = if stream.active() { stream.publisher() } else { "" };
        if publisher != self.client_id {
            *self = Self {
                client_id: publisher.to_owned(),
                frames_before: counter(stream, common.version).unwrap_or(0),
                ..Self::default()
            };
        }
        let Some(listed) = common.clients.filter(|_| stream.active()) else {
            return;
        };
        let mut connections = listed.by_stream.get(&stream.id).into_iter().flatten();
        let own = |client: &&ApiClient| client.publish && (publisher.is_empty() || client.id == publisher);
        let Some(client) = connections.find(own) else { return };
        self.protocol = Some(client.protocol());
        self.started = self.started.or_else(|| client.age().map(|age| listed.asked_at - age));
    }

    /// The frames of the publisher, where this version counts them for its protocol and the counter has moved: it
    /// stands still for the first 20 s of a publisher, and forever for protocols that are not counted.
    fn frames(&mut self, stream: &Stream, common: &Common<'_>) -> Option<Total> {
        let value = counter(stream, common.version).filter(|_| stream.active())?;
        self.frames_moved |= value != self.frames_before;
        if !self.frames_moved || counts_packets(common.version, stream, self.protocol) {
            return None;
        }
        let base = base_of(&["srs frames", common.instance, &stream.id, &self.client_id]);
        Some(Total { base, value })
    }

    fn connections(&self, connections: &[ApiClient], common: &Common<'_>) -> Vec<Client> {
        let asked_at = common.clients.map(|listed| listed.asked_at);
        let client = |connection: &ApiClient| {
            let own = connection.publish && connection.id == self.client_id;
            let derived = asked_at.zip(connection.age()).map(|(asked_at, age)| asked_at - age);
            Some(Client {
                address: connection.address()?,
                started: self.started.filter(|_| own).or(derived),
                publisher: connection.publish,
                protocol: connection.protocol(),
            })
        };
        connections.iter().filter_map(client).collect()
    }
}

/// The video frame counter by this version's meaning of it: `frames` includes audio since `video_frames` was added.
fn counter(stream: &Stream, version: Option<Version>) -> Option<u64> {
    match version {
        Some(version) if version < VIDEO_FRAMES_SINCE => stream.frames,
        Some(_) => stream.video_frames,
        None => stream.video_frames.or(stream.frames),
    }
}

/// Whether the counter may count RTP packets, as it does for a WebRTC publisher in some versions. A publisher of
/// unknown protocol may be one.
fn counts_packets(version: Option<Version>, stream: &Stream, protocol: Option<Protocol>) -> bool {
    let between = match version {
        Some(version) => (VIDEO_FRAMES_SINCE..WEBRTC_FRAMES_SINCE).contains(&version),
        None => stream.video_frames.is_some(),
    };
    between && protocol.is_none_or(|protocol| matches!(protocol, Protocol::Webrtc | Protocol::Mixed))
}

fn by_protocol(connections: &[ApiClient], not_viewers: &[IpAddr]) -> Vec<(Protocol, u32)> {
    let mut counts: BTreeMap<Protocol, u32> = BTreeMap::new();
    for connection in connections {
        let excluded = connection.address().is_some_and(|address| not_viewers.contains(&address));
        if !connection.publish && !excluded {
            *counts.entry(connection.protocol()).or_default() += 1;
        }
    }
    counts.into_iter().collect()
}

/// Since this version `frames` is audio and video, and `video_frames` is what it was (SRS issue 4564).
const VIDEO_FRAMES_SINCE: Version = Version::new(7, 0, 122);
/// Since this version a WebRTC publisher's frames are frames, not RTP packets (SRS issue 4717).
const WEBRTC_FRAMES_SINCE: Version = Version::new(8, 0, 19);
/// How often SRS adds up the bytes of its connections.
const BYTES_STEP: Duration = Duration::from_secs(3);
/// The same for WebRTC connections.
const WEBRTC_BYTES_STEP: Duration = Duration::from_secs(5);
/// How often the publish loop adds up its frames: `publish.normal_timeout`.
const FRAMES_STEP: Duration = Duration::from_secs(5);
