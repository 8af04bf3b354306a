//! One WebRTC peer connection on loopback, VP8 only. Decides how the class's peers are set up and how two of them find
//! each other; refuses every address but 127.0.0.1.
//!
//! No peer asks for retransmission (no NACK): what a viewer loses is then exactly what its link dropped, and the loss it
//! reports is the loss before repair that the loss objective is about.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rtc::interceptor::Registry;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::configure_rtcp_reports;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_VP8, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionState,
};
use webrtc::runtime::TokioRuntime;

/// Why a peer could not be set up or connected.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The WebRTC stack refused a step.
    #[error("{doing}: {source}")]
    Stack {
        /// The step.
        doing: &'static str,
        /// What the stack said.
        source: webrtc::error::Error,
    },
    /// A step did not end in time, or the other side went away.
    #[error("{0}: timed out")]
    Timeout(&'static str),
    /// A session description without a UDP host candidate.
    #[error("reading session description: no host candidate")]
    NoCandidate,
}

/// A peer connection and what it tells.
pub(super) struct Peer {
    pub(super) connection: Arc<dyn PeerConnection>,
    state: watch::Receiver<State>,
    tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
}

impl Peer {
    /// Opens a peer on a free port of 127.0.0.1.
    pub(super) async fn open() -> Result<Self, PeerError> {
        let (state_in, state) = watch::channel(State::default());
        let (track_in, tracks) = mpsc::channel(1);
        let mut codecs = MediaEngine::default();
        codecs
            .register_codec(vp8(), RtpCodecKind::Video)
            .map_err(stack("registering codec"))?;
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEPALIVE))
            .build();
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(codecs)
            .with_setting_engine(settings)
            .with_interceptor_registry(configure_rtcp_reports(Registry::new()))
            .with_handler(Arc::new(Handler {
                state: state_in,
                tracks: track_in,
            }))
            .with_runtime(Arc::new(TokioRuntime))
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
            .build()
            .await
            .map_err(stack("opening peer"))?;
        Ok(Self {
            connection: Arc::new(connection),
            state,
            tracks,
        })
    }

    /// An offer with all its candidates.
    pub(super) async fn offer(&mut self) -> Result<String, PeerError> {
        let offer = self
            .connection
            .create_offer(None)
            .await
            .map_err(stack("making offer"))?;
        self.describe(offer).await
    }

    /// The answer to `offer`, with all its candidates.
    pub(super) async fn answer(&mut self, offer: String) -> Result<String, PeerError> {
        let offer = RTCSessionDescription::offer(offer).map_err(stack("reading offer"))?;
        self.connection
            .set_remote_description(offer)
            .await
            .map_err(stack("taking offer"))?;
        let answer = self
            .connection
            .create_answer(None)
            .await
            .map_err(stack("making answer"))?;
        self.describe(answer).await
    }

    /// Takes the answer to the offer made before.
    pub(super) async fn accept(&self, answer: String) -> Result<(), PeerError> {
        let answer = RTCSessionDescription::answer(answer).map_err(stack("reading answer"))?;
        self.connection
            .set_remote_description(answer)
            .await
            .map_err(stack("taking answer"))
    }

    /// Waits until ICE and DTLS are done.
    pub(super) async fn connected(&mut self) -> Result<(), PeerError> {
        let connected = self.state.wait_for(|state| state.connected);
        match timeout(CONNECT, connected).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(PeerError::Timeout("connecting peer")),
        }
    }

    /// Waits for the other side's track.
    pub(super) async fn track(&mut self) -> Result<Arc<dyn TrackRemote>, PeerError> {
        match timeout(CONNECT, self.tracks.recv()).await {
            Ok(Some(track)) => Ok(track),
            _ => Err(PeerError::Timeout("waiting for track")),
        }
    }

    /// Closes the connection; its driver has stopped when this returns.
    pub(super) async fn close(&self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "closing demo peer");
        }
    }

    async fn describe(&mut self, description: RTCSessionDescription) -> Result<String, PeerError> {
        self.connection
            .set_local_description(description)
            .await
            .map_err(stack("taking own description"))?;
        let gathered = self.state.wait_for(|state| state.gathered);
        if !matches!(timeout(GATHER, gathered).await, Ok(Ok(_))) {
            return Err(PeerError::Timeout("gathering candidates"));
        }
        let description = self.connection.local_description().await;
        description
            .map(|description| description.sdp)
            .ok_or(PeerError::NoCandidate)
    }
}

/// Connects two peers directly: `offerer` offers, `answerer` answers.
pub(super) async fn introduce(offerer: &mut Peer, answerer: &mut Peer) -> Result<(), PeerError> {
    let offer = offerer.offer().await?;
    let answer = answerer.answer(offer).await?;
    offerer.accept(answer).await
}

/// The address of the first UDP host candidate of a session description (RFC 8839 5.1).
pub(super) fn candidate(sdp: &str) -> Result<SocketAddr, PeerError> {
    sdp.lines()
        .find_map(|line| Candidate::read(line)?.address())
        .ok_or(PeerError::NoCandidate)
}

/// The session description with every candidate moved to `relay`, so that all packets pass there.
pub(super) fn redirect(sdp: &str, relay: SocketAddr) -> String {
    let mut moved = String::with_capacity(sdp.len());
    for line in sdp.lines() {
        match Candidate::read(line) {
            Some(candidate) => moved.push_str(&candidate.at(relay)),
            None => moved.push_str(line),
        }
        moved.push_str("\r\n");
    }
    moved
}

/// A candidate line by its parts: `a=candidate:<foundation> <component> <transport> <priority> <address> <port> <rest>`.
struct Candidate<'a> {
    parts: Vec<&'a str>,
}

impl<'a> Candidate<'a> {
    fn read(line: &'a str) -> Option<Self> {
        line.starts_with("a=candidate:")
            .then(|| Self {
                parts: line.split(' ').collect(),
            })
            .filter(|c| c.parts.len() >= 8)
    }

    fn address(&self) -> Option<SocketAddr> {
        let udp = self.parts[2].eq_ignore_ascii_case("udp") && self.parts[7] == "host";
        udp.then(|| {
            Some(SocketAddr::new(
                self.parts[4].parse().ok()?,
                self.parts[5].parse().ok()?,
            ))
        })?
    }

    fn at(&self, relay: SocketAddr) -> String {
        let (before, after) = (self.parts[..4].join(" "), self.parts[6..].join(" "));
        format!("{before} {} {} {after}", relay.ip(), relay.port())
    }
}

/// A local video track that sends what it is given under `ssrc`.
pub(super) fn video_track(ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let name = format!("class-{ssrc}");
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            ..Default::default()
        },
        codec: vp8().rtp_codec,
        ..Default::default()
    };
    let track = MediaStreamTrack::new(name.clone(), name.clone(), name, RtpCodecKind::Video, vec![encoding]);
    Arc::new(TrackLocalStaticRTP::new(track))
}

fn vp8() -> RTCRtpCodecParameters {
    let rtp_codec = RTCRtpCodec {
        mime_type: MIME_TYPE_VP8.to_owned(),
        clock_rate: CLOCK_RATE,
        ..RTCRtpCodec::default()
    };
    RTCRtpCodecParameters {
        rtp_codec,
        payload_type: PAYLOAD_TYPE,
    }
}

fn stack(doing: &'static str) -> impl Fn(webrtc::error::Error) -> PeerError {
    move |source| PeerError::Stack { doing, source }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    gathered: bool,
    connected: bool,
}

struct Handler {
    state: watch::Sender<State>,
    tracks: mpsc::Sender<Arc<dyn TrackRemote>>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.state.send_modify(|known| known.gathered = true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state
            .send_modify(|known| known.connected = state == RTCPeerConnectionState::Connected);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        if self.tracks.try_send(track).is_err() {
            tracing::debug!("demo peer got a track nobody waits for");
        }
    }
}

/// The payload type all peers of the class agree on.
pub(super) const PAYLOAD_TYPE: u8 = 96;

/// The clock of VP8 over RTP in hertz (RFC 7741).
pub(super) const CLOCK_RATE: u32 = 90_000;

/// How long a peer may gather: loopback takes milliseconds.
const GATHER: Duration = Duration::from_secs(10);

/// How long ICE and DTLS may take, also over a bad link.
const CONNECT: Duration = Duration::from_secs(20);

/// Silence after which ICE calls the peer disconnected: longer than any outage a script would make.
const ICE_DISCONNECTED: Duration = Duration::from_secs(30);

/// Silence after which ICE gives the peer up.
const ICE_FAILED: Duration = Duration::from_secs(120);

/// How often ICE checks the path when idle; each check measures the round trip.
const ICE_KEEPALIVE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_moves_candidates_and_nothing_else() {
        let sdp = "v=0\r\nc=IN IP4 0.0.0.0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 5000 typ host generation 0\r\na=mid:0\r\n";
        assert_eq!(candidate(sdp).unwrap(), "127.0.0.1:5000".parse::<SocketAddr>().unwrap());
        let relay = "127.0.0.1:9".parse().unwrap();
        let moved = redirect(sdp, relay);
        assert_eq!(candidate(&moved).unwrap(), relay);
        assert_eq!(moved, sdp.replace("127.0.0.1 5000", "127.0.0.1 9"));
    }

    #[test]
    fn without_a_udp_host_candidate_there_is_no_address() {
        for line in [
            "",
            "a=candidate:1 1",
            "a=candidate:1 1 tcp 1 127.0.0.1 9 typ host",
            "a=candidate:1 1 udp 1 x 9 typ host",
        ] {
            assert!(matches!(candidate(line), Err(PeerError::NoCandidate)), "{line}");
        }
    }
}
