//! The teacher: plays the clip into a peer connection, frame by frame at its rate, in a loop, or with a fault. Sequence
//! numbers and timestamps continue through the loop. It skips no frame of its own: frames that a busy machine delayed
//! follow immediately.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rtc::rtp;
use rtc::rtp::codec::vp8::Vp8Payloader;
use rtc::rtp::packetizer::Payloader;
use tokio::sync::watch;
use tokio::time::interval;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use super::clip::Clip;
use super::peer::{CLOCK_RATE, PAYLOAD_TYPE};

/// How the teacher sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sending {
    /// Each frame at its time.
    #[default]
    Usual,
    /// About one frame of this many, at random: the encoder does not keep up.
    OneOf(u32),
    /// This many frames at once, after collecting them: the uplink stalls.
    Bursts(u32),
}

/// Turns frames into RTP packets.
#[derive(Debug)]
pub(super) struct Packets {
    ssrc: u32,
    sequence: u16,
    rtp_time: u32,
    step: u32,
    payloader: Vp8Payloader,
}

impl Packets {
    /// Begins at a sequence number and timestamp derived from `seed`, as RFC 3550, 5.1 requires.
    pub(super) fn new(ssrc: u32, fps: u32, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut payloader = Vp8Payloader::default();
        payloader.enable_picture_id = true;
        Self { ssrc, sequence: random.u16(..), rtp_time: random.u32(..), step: CLOCK_RATE / fps.max(1), payloader }
    }

    /// The packets of the next frame; the last carries the marker.
    pub(super) fn next(&mut self, frame: &Bytes) -> Vec<rtp::Packet> {
        let payloads = self.payloader.payload(MAX_PAYLOAD, frame).unwrap_or_default();
        let last = payloads.len().saturating_sub(1);
        let rtp_time = self.rtp_time;
        self.rtp_time = rtp_time.wrapping_add(self.step);
        payloads.into_iter().enumerate().map(|(i, payload)| self.packet(rtp_time, payload, i == last)).collect()
    }

    /// Lets a frame's time pass without a packet.
    fn skip(&mut self) {
        self.rtp_time = self.rtp_time.wrapping_add(self.step);
    }

    fn packet(&mut self, timestamp: u32, payload: Bytes, marker: bool) -> rtp::Packet {
        let sequence_number = self.sequence;
        self.sequence = sequence_number.wrapping_add(1);
        let header = rtp::Header {
            version: 2,
            payload_type: PAYLOAD_TYPE,
            ssrc: self.ssrc,
            marker,
            sequence_number,
            timestamp,
            ..rtp::Header::default()
        };
        rtp::Packet { header, payload }
    }
}

/// Plays `clip` into `track` until the track is closed.
pub(super) async fn publish(
    clip: Clip,
    mut packets: Packets,
    track: Arc<TrackLocalStaticRTP>,
    sending: watch::Receiver<Sending>,
) {
    let mut tick = interval(Duration::from_secs(1) / clip.fps.max(1));
    let (mut gathered, mut random) = (Vec::new(), fastrand::Rng::with_seed(u64::from(packets.rtp_time)));
    for (frame, number) in clip.frames.iter().cycle().zip(0_u64..) {
        tick.tick().await;
        let now = *sending.borrow();
        match now {
            Sending::OneOf(every) if !random.u32(..).is_multiple_of(every) => packets.skip(),
            _ => gathered.extend(packets.next(frame)),
        }
        if matches!(now, Sending::Bursts(frames) if !number.is_multiple_of(u64::from(frames))) {
            continue;
        }
        for packet in gathered.drain(..) {
            if let Err(error) = track.write_rtp(packet).await {
                tracing::debug!(%error, "demo publisher stopped");
                return;
            }
        }
    }
}

/// Largest payload of a packet in bytes: with RTP, SRTP and UDP headers it stays under 1,280, the smallest MTU of IPv6.
const MAX_PAYLOAD: usize = 1_150;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_a_frame_end_with_a_marker_and_continue_through_the_loop() {
        let clip = Clip::embedded().unwrap();
        let mut packets = Packets::new(7, clip.fps, 1);
        let all: Vec<Vec<rtp::Packet>> =
            clip.frames.iter().cycle().take(301).map(|frame| packets.next(frame)).collect();
        assert!(all.iter().all(|frame| frame.iter().filter(|packet| packet.header.marker).count() == 1));
        assert!(all.iter().all(|frame| frame.last().unwrap().header.marker));
        let flat: Vec<&rtp::Packet> = all.iter().flatten().collect();
        assert!(
            flat.windows(2)
                .all(|two| { two[1].header.sequence_number == two[0].header.sequence_number.wrapping_add(1) })
        );
        assert!(
            all.windows(2).all(|two| { two[1][0].header.timestamp == two[0][0].header.timestamp.wrapping_add(3_600) })
        );
        assert!(flat.iter().all(|packet| packet.payload.len() <= MAX_PAYLOAD));
    }
}
