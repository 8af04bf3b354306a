//! One WebRTC peer connection on loopback, VP8 only: how the class's peers are set up and how two of them connect. Uses
//! no address but 127.0.0.1.
//!
//! No peer requests retransmission (no NACK). A viewer therefore loses exactly what its link dropped, and reports loss
//! before repair, which the loss objective refers to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use tokio::runtime::Handle;
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
    /// The WebRTC stack rejected a step.
    #[error("{doing}: {source}")]
    Stack {
        /// The step.
        doing: &'static str,
        /// The stack's error.
        source: webrtc::error::Error,
    },
    /// A step timed out, or the other side is gone.
    #[error("{0}: timed out")]
    Timeout(&'static str),
    /// A session description without a UDP host candidate.
    #[error("reading session description: no host candidate")]
    NoCandidate,
}

/// A peer connection and its events.
///
/// Dropped without [`Peer::close`], it closes itself on the current runtime; otherwise the stack's driver would keep
/// running.
pub(super) struct Peer {
    pub(super) connection: Arc<dyn PeerConnection>,
    state: watch::Receiver<State>,
    tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    closed: AtomicBool,
}

impl Peer {
    /// Opens a peer on a free port of 127.0.0.1.
    pub(super) async fn open() -> Result<Self, PeerError> {
        let (state_in, state) = watch::channel(State::default());
        let (track_in, tracks) = mpsc::channel(1);
        let mut codecs = MediaEngine::default();
        codecs.register_codec(vp8(), RtpCodecKind::Video).map_err(stack("registering codec"))?;
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEPALIVE))
            .build();
        let opening = PeerConnectionBuilder::new()
            .with_media_engine(codecs)
            .with_setting_engine(settings)
            .with_interceptor_registry(configure_rtcp_reports(Registry::new()))
            .with_handler(Arc::new(Handler { state: state_in, tracks: track_in }))
            .with_runtime(Arc::new(TokioRuntime))
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
            .build();
        let connection = Box::pin(opening).await.map_err(stack("opening peer"))?;
        Ok(Self { connection: Arc::new(connection), state, tracks, closed: AtomicBool::new(false) })
    }

    /// An offer with all candidates.
    pub(super) async fn offer(&mut self) -> Result<String, PeerError> {
        let offer = self.connection.create_offer(None).await.map_err(stack("making offer"))?;
        self.describe(offer).await
    }

    /// The answer to `offer`, with all candidates.
    pub(super) async fn answer(&mut self, offer: String) -> Result<String, PeerError> {
        let offer = RTCSessionDescription::offer(offer).map_err(stack("reading offer"))?;
        self.connection.set_remote_description(offer).await.map_err(stack("taking offer"))?;
        let answer = self.connection.create_answer(None).await.map_err(stack("making answer"))?;
        self.describe(answer).await
    }

    /// Applies the answer to the offer made before.
    pub(super) async fn accept(&self, answer: String) -> Result<(), PeerError> {
        let answer = RTCSessionDescription::answer(answer).map_err(stack("reading answer"))?;
        self.connection.set_remote_description(answer).await.map_err(stack("taking answer"))
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
        self.closed.store(true, Ordering::Relaxed);
        close(&self.connection).await;
    }

    async fn describe(&mut self, description: RTCSessionDescription) -> Result<String, PeerError> {
        self.connection.set_local_description(description).await.map_err(stack("setting the local description"))?;
        let gathered = self.state.wait_for(|state| state.gathered);
        if !matches!(timeout(GATHER, gathered).await, Ok(Ok(_))) {
            return Err(PeerError::Timeout("gathering candidates"));
        }
        let description = self.connection.local_description().await;
        description.map(|description| description.sdp).ok_or(PeerError::NoCandidate)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (*self.closed.get_mut(), Handle::try_current()) {
            let connection = Arc::clone(&self.connection);
            runtime.spawn(async move { close(&connection).await });
        }
    }
}

async fn close(connection: &Arc<dyn PeerConnection>) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "closing demo peer");
    }
}

/// Connects two peers directly: `offerer` offers, `answerer` answers.
pub(super) async fn introduce(offerer: &mut Peer, answerer: &mut Peer) -> Result<(), PeerError> {
    let offer = offerer.offer().await?;
    let answer = answerer.answer(offer).await?;
    offerer.accept(answer).await
}

/// A local video track that sends with `ssrc`.
pub(super) fn video_track(ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let name = format!("class-{ssrc}");
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
        codec: vp8().rtp_codec,
        ..Default::default()
    };
    let track = MediaStreamTrack::new(name.clone(), name.clone(), name, RtpCodecKind::Video, vec![encoding]);
    Arc::new(TrackLocalStaticRTP::new(track))
}

fn vp8() -> RTCRtpCodecParameters {
    let rtp_codec =
        RTCRtpCodec { mime_type: MIME_TYPE_VP8.to_owned(), clock_rate: CLOCK_RATE, ..RTCRtpCodec::default() };
    RTCRtpCodecParameters { rtp_codec, payload_type: PAYLOAD_TYPE }
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
        self.state.send_modify(|known| known.connected = state == RTCPeerConnectionState::Connected);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        if self.tracks.try_send(track).is_err() {
            tracing::debug!("demo peer received an unexpected track");
        }
    }
}

/// The payload type of all peers of the class.
pub(super) const PAYLOAD_TYPE: u8 = 96;

/// The clock of VP8 over RTP in hertz (RFC 7741).
pub(super) const CLOCK_RATE: u32 = 90_000;

/// The node sends to viewer n under this SSRC plus n (RFC 3550, section 3).
pub(super) const FIRST_SSRC: u32 = 0x1000_0000;

/// Time limit for gathering candidates; loopback takes milliseconds.
const GATHER: Duration = Duration::from_secs(10);

/// Time limit for ICE and DTLS, also over a bad link.
const CONNECT: Duration = Duration::from_secs(20);

/// Silence after which ICE considers the peer disconnected: longer than any outage in a script.
const ICE_DISCONNECTED: Duration = Duration::from_secs(30);

/// Silence after which ICE considers the connection failed.
const ICE_FAILED: Duration = Duration::from_mins(2);

/// How often ICE checks the path when idle; each check measures the round trip.
const ICE_KEEPALIVE: Duration = Duration::from_secs(1);
