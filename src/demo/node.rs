//! The media server of the class: receives the teacher's packets and forwards each to every viewer (a selective
//! forwarding unit, RFC 7667, 3.7). It changes and repairs nothing, and counts what arrives and what it sends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use liveqos_core::media::{Arrival, Reception};
use liveqos_core::model::Timestamp;
use rtc::rtp;
use tokio::sync::Notify;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

use super::clock::Clock;
use super::frames::{Frames, Piece};
use super::peer::CLOCK_RATE;

/// Totals of the teacher's stream at the node since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestTotals {
    /// Media payload bytes, without RTP, SRTP and UDP headers.
    pub bytes: u64,
    /// Complete frames.
    pub frames: u64,
    /// RTP packets.
    pub packets: u64,
}

/// Totals of what the node sent to all viewers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressTotals {
    /// Media payload bytes, counting each viewer's copy.
    pub bytes: u64,
    /// RTP packets, counting each viewer's copy.
    pub packets: u64,
    /// Viewers connected at present.
    pub viewers: u32,
}

/// The node's forwarding table and counters, shared by the forwarding task and its readers.
pub(super) struct Node {
    clock: Clock,
    state: Mutex<State>,
    first_packet: Notify,
}

#[derive(Default)]
struct State {
    ingest: IngestTotals,
    egress: EgressTotals,
    reception: Reception,
    frames: Frames,
    forwarded: VecDeque<(u32, Timestamp)>,
    viewers: Arc<Vec<Egress>>,
}

/// One viewer at the node.
#[derive(Clone)]
struct Egress {
    viewer: u32,
    ssrc: u32,
    track: Arc<TrackLocalStaticRTP>,
}

impl Node {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default(), first_packet: Notify::new() }
    }

    /// Forwards the teacher's `track` until it ends.
    pub(super) async fn forward(&self, track: Arc<dyn TrackRemote>) {
        while let Some(event) = track.poll().await {
            if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                self.packet(packet).await;
            }
        }
    }

    /// Waits for the first packet of the teacher.
    pub(super) async fn started(&self) {
        self.first_packet.notified().await;
    }

    /// Forwards every packet from now on to `track`, which sends with `ssrc`.
    pub(super) fn admit(&self, viewer: u32, ssrc: u32, track: Arc<TrackLocalStaticRTP>) {
        self.state(|state| {
            let mut viewers = state.viewers.to_vec();
            viewers.push(Egress { viewer, ssrc, track });
            state.egress.viewers = viewers.len() as u32;
            state.viewers = Arc::new(viewers);
        });
    }

    /// Stops forwarding to the viewer.
    pub(super) fn dismiss(&self, viewer: u32) {
        self.state(|state| {
            let mut viewers = state.viewers.to_vec();
            viewers.retain(|egress| egress.viewer != viewer);
            state.egress.viewers = viewers.len() as u32;
            state.viewers = Arc::new(viewers);
        });
    }

    pub(super) fn ingest(&self) -> IngestTotals {
        self.state(|state| state.ingest)
    }

    pub(super) fn egress(&self) -> EgressTotals {
        self.state(|state| state.egress)
    }

    /// When the node began to forward the last packet of the frame with this RTP timestamp; `None` if that frame was
    /// not complete or is older than the last [`MAX_FORWARDED`].
    pub(super) fn forwarded_at(&self, rtp_time: u32) -> Option<Timestamp> {
        self.state(|state| state.forwarded.iter().rev().find(|(time, _)| *time == rtp_time).map(|&(_, at)| at))
    }

    async fn packet(&self, packet: rtp::Packet) {
        let now = (self.clock)();
        let (viewers, first) = self.state(|state| (Arc::clone(&state.viewers), state.account(&packet, now)));
        if first {
            self.first_packet.notify_one();
        }
        let bytes = packet.payload.len() as u64;
        let mut sent = 0_u64;
        for viewer in viewers.iter() {
            let mut copy = packet.clone();
            copy.header.ssrc = viewer.ssrc;
            sent += u64::from(viewer.track.write_rtp(copy).await.is_ok());
        }
        self.state(|state| {
            state.egress.packets += sent;
            state.egress.bytes += sent * bytes;
        });
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Counts one packet of the teacher; true for the first.
    fn account(&mut self, packet: &rtp::Packet, now: Timestamp) -> bool {
        let header = &packet.header;
        self.ingest.packets += 1;
        self.ingest.bytes += packet.payload.len() as u64;
        let seen = self.reception.packet(header.sequence_number, header.timestamp, CLOCK_RATE, now);
        if let Arrival::New(position) | Arrival::Restart(position) = seen {
            let piece = Piece::read(position, header.timestamp, header.marker, &packet.payload);
            if let Some(frame) = self.frames.piece(piece) {
                self.ingest.frames += 1;
                if self.forwarded.len() == MAX_FORWARDED {
                    self.forwarded.pop_front();
                }
                self.forwarded.push_back((frame.rtp_time, now));
            }
        }
        self.ingest.packets == 1
    }
}

/// Frames whose forwarding time is kept: 20 s at 25 frames per second, longer than any link's queue.
const MAX_FORWARDED: usize = 512;
