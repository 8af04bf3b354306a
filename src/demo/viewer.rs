//! One viewer of the class. Determines from its packets what it really saw: loss, complete frames, freezes. A frame
//! with a missing packet is not shown, nor any frame before the first key frame.
//!
//! There is no jitter buffer: a frame is shown as soon as it is complete. After a lost frame the picture may be damaged
//! but moves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use liveqos_core::media::{Arrival, Playout, Reception};
use liveqos_core::model::Timestamp;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::sync::{Semaphore, watch};
use tokio::time::interval;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::StatsSelector;

use super::clock::Clock;
use super::frames::{Frames, Piece};
use super::link::Link;
use super::node::Node;
use super::peer::{CLOCK_RATE, FIRST_SSRC, Peer, PeerError, video_track};
use super::sdp_candidate::{candidate, redirect};

/// Totals of one viewer since it joined, in the sense of W3C webrtc-stats `inbound-rtp`. They never decrease, except
/// `packets_lost`, which a late packet reduces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewerTotals {
    /// The viewer's number, from 0.
    pub viewer: u32,
    /// RTP packets received (`packetsReceived`).
    pub packets_received: u64,
    /// Packets lost, without repair (`packetsLost`, RFC 3550, 6.4.1).
    pub packets_lost: i64,
    /// Payload bytes received (`bytesReceived`).
    pub bytes_received: u64,
    /// Frames shown (`framesRendered`).
    pub frames: u64,
    /// Freezes, including an open one (`freezeCount`).
    pub freezes: u64,
    /// Time frozen, including an open freeze (`totalFreezesDuration`, but up to date).
    pub frozen: Duration,
    /// Time since the first frame.
    pub exposure: Duration,
    /// Latest round trip of the path (candidate pair `currentRoundTripTime`); absent until a check was answered.
    pub rtt: Option<Duration>,
    /// Time from the start of joining until ICE and DTLS were done.
    pub connected: Option<Duration>,
    /// Time from the start of joining until the first frame was shown.
    pub first_frame: Option<Duration>,
    /// Time from the node's forwarding of the last shown frame until it was complete at this viewer.
    pub delivery_latency: Option<Duration>,
}

/// A viewer's totals, shared by the watching task and its readers.
pub(super) struct Viewer {
    number: u32,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    joining_since: Timestamp,
    reception: Reception,
    frames: Frames,
    playout: Playout,
    had_key_frame: bool,
    bytes: u64,
    rtt: Option<Duration>,
    connected: Option<Duration>,
    first_frame: Option<Duration>,
    delivery_latency: Option<Duration>,
    shows_every: Option<Duration>,
    shown: Timestamp,
}

impl Viewer {
    pub(super) fn new(number: u32, clock: Clock) -> Self {
        Self { number, clock, state: Mutex::default() }
    }

    /// From now on shows at most one frame per `shows_every`.
    pub(super) fn slow(&self, shows_every: Option<Duration>) {
        self.state(|state| state.shows_every = shows_every);
    }

    /// The totals until `now`.
    pub(super) fn totals(&self, now: Timestamp) -> ViewerTotals {
        self.state(|state| {
            let received = state.reception.totals();
            let playout = state.playout.totals(now);
            ViewerTotals {
                viewer: self.number,
                packets_received: received.received,
                packets_lost: received.lost,
                bytes_received: state.bytes,
                frames: playout.frames,
                freezes: playout.freezes,
                frozen: playout.frozen,
                exposure: playout.exposure,
                rtt: state.rtt,
                connected: state.connected,
                first_frame: state.first_frame,
                delivery_latency: state.delivery_latency,
            }
        })
    }

    /// Joins through `link` and watches until `stop` is set or its sender is dropped; then closes both peers.
    pub(super) async fn watch_class(
        &self,
        node: &Node,
        link: &Link,
        join_permits: &Semaphore,
        stop: watch::Receiver<bool>,
    ) -> Result<(), PeerError> {
        let mut stopped = stop;
        let admission = tokio::select! {
            _ = stopped.wait_for(|&stop| stop) => return Ok(()),
            admission = join_permits.acquire() => admission,
        };
        let joining_since = (self.clock)();
        self.state(|state| state.joining_since = joining_since);
        let (mut server, mut client) = (Peer::open().await?, Peer::open().await?);
        let outcome = tokio::select! {
            _ = stopped.wait_for(|&stop| stop) => Ok(()),
            outcome = async {
                let track = self.join(node, link, &mut server, &mut client).await?;
                drop(admission);
                self.stay(node, track, &client).await;
                Ok(())
            } => outcome,
        };
        node.dismiss(self.number);
        client.close().await;
        server.close().await;
        outcome
    }

    async fn join(
        &self,
        node: &Node,
        link: &Link,
        server: &mut Peer,
        client: &mut Peer,
    ) -> Result<Arc<dyn TrackRemote>, PeerError> {
        let ssrc = FIRST_SSRC + self.number;
        let sender = video_track(ssrc);
        let stack = |doing| move |source| PeerError::Stack { doing, source };
        let track: Arc<dyn TrackLocal> = sender.clone();
        server.connection.add_track(track).await.map_err(stack("adding track"))?;
        let receive = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
        let receiving = client.connection.add_transceiver_from_kind(RtpCodecKind::Video, Some(receive));
        receiving.await.map_err(stack("adding transceiver"))?;

        let offer = client.offer().await?;
        link.viewer_is(candidate(&offer)?);
        let answer = server.answer(redirect(&offer, link.address())).await?;
        link.node_is(candidate(&answer)?);
        client.accept(redirect(&answer, link.address())).await?;
        client.connected().await?;
        let now = (self.clock)();
        self.state(|state| state.connected = Some(now.since(state.joining_since)));
        server.connected().await?;
        node.admit(self.number, ssrc, sender);
        client.track().await
    }

    async fn stay(&self, node: &Node, track: Arc<dyn TrackRemote>, client: &Peer) {
        tokio::select! {
            () = self.watch(node, track) => {}
            () = self.measure_rtt(client) => {}
        }
    }

    async fn watch(&self, node: &Node, track: Arc<dyn TrackRemote>) {
        while let Some(event) = track.poll().await {
            if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                self.packet(node, &packet);
            }
        }
    }

    fn packet(&self, node: &Node, packet: &rtp::Packet) {
        let now = (self.clock)();
        let Some(shown) = self.state(|state| state.account(packet, now)) else {
            return;
        };
        let forwarded = node.forwarded_at(shown);
        self.state(|state| {
            state.delivery_latency = forwarded.map(|forwarded| now.since(forwarded)).or(state.delivery_latency);
        });
    }

    /// Reads the round trip of the nominated candidate pair, the only usable figure in the stack's statistics.
    async fn measure_rtt(&self, client: &Peer) {
        let mut tick = interval(RTT_INTERVAL);
        loop {
            tick.tick().await;
            let report = client.connection.get_stats(Instant::now(), StatsSelector::None).await;
            let seconds = report.candidate_pairs().map(|pair| pair.current_round_trip_time).find(|&rtt| rtt > 0.0);
            if let Some(rtt) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                self.state(|state| state.rtt = Some(rtt));
            }
        }
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Counts one packet; returns the RTP timestamp of the frame that is shown because of it.
    fn account(&mut self, packet: &rtp::Packet, now: Timestamp) -> Option<u32> {
        let header = &packet.header;
        self.bytes += packet.payload.len() as u64;
        let seen = self.reception.packet(header.sequence_number, header.timestamp, CLOCK_RATE, now);
        let (Arrival::New(position) | Arrival::Restart(position)) = seen else {
            return None;
        };
        let frame = self.frames.piece(Piece::read(position, header.timestamp, header.marker, &packet.payload))?;
        self.had_key_frame |= frame.key;
        if !self.had_key_frame {
            return None;
        }
        if self.shows_every.is_some_and(|every| now.since(self.shown) < every) {
            return None;
        }
        self.shown = now;
        self.playout.frame(now);
        self.first_frame.get_or_insert(now.since(self.joining_since));
        Some(frame.rtp_time)
    }
}

/// How often the round trip is read.
const RTT_INTERVAL: Duration = Duration::from_secs(1);
