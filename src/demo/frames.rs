//! Assembles the packets of a VP8 stream into frames. A frame is complete with its first packet (RFC 7741, S bit and
//! partition 0), its last one (marker) and all between; frames that arrive after a newer one was shown are dropped.

use std::collections::VecDeque;

/// A frame that was complete in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its RTP timestamp.
    pub(super) rtp_time: u32,
    /// Whether it can be shown without other frames (VP8 key frame).
    pub(super) key: bool,
}

/// One packet of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Its position in the stream, from [`liveqos_core::media::Arrival::New`].
    pub(super) position: u64,
    pub(super) rtp_time: u32,
    pub(super) marker: bool,
    pub(super) start: bool,
    pub(super) key: bool,
}

impl Piece {
    /// Parses the VP8 payload descriptor (RFC 7741, 4.2) for the start of a frame, and after it the frame's key bit
    /// (4.3).
    pub(super) fn read(position: u64, rtp_time: u32, marker: bool, payload: &[u8]) -> Self {
        let first = payload.first().copied().unwrap_or(0);
        let (starts, partition) = (first & 0x10 != 0, first & 0x07);
        let start = starts && partition == 0;
        let key = start && payload.get(descriptor_length(payload)).is_some_and(|byte| byte & 1 == 0);
        Self { position, rtp_time, marker, start, key }
    }
}

fn descriptor_length(payload: &[u8]) -> usize {
    let bit = |at: usize, mask: u8| payload.get(at).is_some_and(|byte| byte & mask != 0);
    if !bit(0, 0x80) {
        return 1;
    }
    let picture = if bit(1, 0x80) { 1 + usize::from(bit(2, 0x80)) } else { 0 };
    2 + picture + usize::from(bit(1, 0x40)) + usize::from(bit(1, 0x30))
}

/// Incomplete frames, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    open: VecDeque<Open>,
    shown: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    rtp_time: u32,
    first: Option<u64>,
    last: Option<u64>,
    pieces: u64,
    key: bool,
}

impl Frames {
    /// Adds one packet, never the same twice; returns the frame that it completes.
    pub(super) fn piece(&mut self, piece: Piece) -> Option<Frame> {
        if self.shown.is_some_and(|shown| !newer(piece.rtp_time, shown)) {
            return None;
        }
        let at = self.open.iter().position(|open| open.rtp_time == piece.rtp_time).unwrap_or_else(|| {
            if self.open.len() == MAX_OPEN {
                self.open.pop_front();
            }
            self.open.push_back(Open { rtp_time: piece.rtp_time, first: None, last: None, pieces: 0, key: false });
            self.open.len() - 1
        });
        let open = self.open.get_mut(at)?;
        open.pieces += 1;
        open.key |= piece.key;
        open.first = open.first.or(piece.start.then_some(piece.position));
        open.last = open.last.or(piece.marker.then_some(piece.position));
        let whole =
            open.first.zip(open.last).is_some_and(|(first, last)| last.checked_sub(first) == Some(open.pieces - 1));
        if !whole {
            return None;
        }
        let frame = Frame { rtp_time: open.rtp_time, key: open.key };
        self.shown = Some(frame.rtp_time);
        self.open.retain(|open| newer(open.rtp_time, frame.rtp_time));
        Some(frame)
    }
}

/// Whether RTP timestamp `a` is after `b`, across a wrap.
fn newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// Largest number of incomplete frames; the oldest is dropped when another begins. At 25 frames per second 16 are 640
/// ms.
const MAX_OPEN: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::demo::clip::Clip;
    use crate::demo::publisher::Packets;

    /// The packets of the first `frames` frames of the clip, frame by frame, as the teacher sends them.
    fn pieces(frames: usize, seed: u64) -> Vec<Vec<Piece>> {
        let clip = Clip::embedded().unwrap();
        let mut packets = Packets::new(1, clip.fps, seed);
        let mut position = 0;
        let frame = |frame| {
            let packets = packets.next(frame).into_iter().map(|packet| {
                position += 1;
                Piece::read(position, packet.header.timestamp, packet.header.marker, &packet.payload)
            });
            packets.collect()
        };
        clip.frames.iter().cycle().take(frames).map(frame).collect()
    }

    #[test]
    fn all_frames_are_complete_and_every_25th_is_a_key_frame() {
        let mut frames = Frames::default();
        let shown: Vec<Frame> = pieces(400, 3).into_iter().flatten().filter_map(|piece| frames.piece(piece)).collect();
        assert_eq!(shown.len(), 400);
        assert!((0_usize..).zip(&shown).all(|(i, frame)| frame.key == (i % 25 == 0)));
    }

    #[test]
    fn a_late_frame_is_not_shown_after_a_newer_one() {
        let two = pieces(3, 3);
        let mut frames = Frames::default();
        let order = [&two[0], &two[2], &two[1]];
        let shown: Vec<u32> =
            order.into_iter().flatten().filter_map(|&piece| frames.piece(piece)).map(|f| f.rtp_time).collect();
        assert_eq!(shown, [two[0][0].rtp_time, two[2][0].rtp_time]);
    }

    #[test]
    fn incomplete_frames_do_not_accumulate() {
        let mut frames = Frames::default();
        for piece in pieces(200, 3).into_iter().flatten().filter(|piece| !piece.marker) {
            assert_eq!(frames.piece(piece), None);
        }
        assert_eq!(frames.open.len(), MAX_OPEN);
    }

    #[test]
    fn the_descriptor_may_be_short_long_or_absent() {
        let key = |payload: &[u8]| Piece::read(1, 0, false, payload).key;
        assert!(key(&[0x10, 0x00]) && !key(&[0x10, 0x01]) && !key(&[0x00, 0x00]) && !key(&[0x11, 0x00]));
        assert!(key(&[0x90, 0x80, 0x7f, 0x00]) && !key(&[0x90, 0x80, 0x7f, 0x01]));
        assert!(key(&[0x90, 0xf0, 0x80, 0x01, 0x02, 0x03, 0x00]) && !key(&[0x90, 0xf0, 0x80, 0x01, 0x02, 0x03, 0x01]));
        assert!(!key(&[]) && !key(&[0x10]) && !key(&[0x90, 0x80]));
    }

    proptest! {
        #[test]
        fn a_frame_is_shown_exactly_when_no_packet_of_it_is_missing(lost in prop::collection::vec(prop::bool::weighted(0.1), 400), seed in any::<u64>()) {
            let mut frames = Frames::default();
            let mut lost = lost.into_iter().cycle();
            for frame in pieces(150, seed) {
                let kept: Vec<Piece> = frame.iter().copied().filter(|_| !lost.next().unwrap()).collect();
                let whole = kept.len() == frame.len();
                let shown: Vec<Frame> = kept.into_iter().filter_map(|piece| frames.piece(piece)).collect();
                prop_assert_eq!(shown.len(), usize::from(whole));
            }
        }
    }
}
