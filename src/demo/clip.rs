//! The class's picture: a clip of VP8 frames in an IVF container, parsed once and played in a loop. A container that is
//! truncated, has another codec or exceeds the limits is rejected.

use bytes::Bytes;
use thiserror::Error;

/// Why a clip could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClipError {
    /// The first four bytes are not `DKIF`, or the header's length field is not 32.
    #[error("reading clip: not an ivf file")]
    NotIvf,
    /// The container has another codec.
    #[error("reading clip: codec is not vp8")]
    NotVp8,
    /// The header's time base is not a frame rate of 1 to 120 frames per second.
    #[error("reading clip: frame rate out of bounds")]
    FrameRate,
    /// A frame is empty, or extends beyond the end of the file.
    #[error("reading clip: frame {0} is truncated or empty")]
    Truncated(usize),
    /// No frame, or more than 2,000.
    #[error("reading clip: {0} frames")]
    FrameCount(usize),
}

/// Encoded frames in playing order, and their rate.
#[derive(Clone, Debug)]
pub(super) struct Clip {
    pub(super) frames: Vec<Bytes>,
    pub(super) fps: u32,
}

impl Clip {
    /// The embedded clip: 6 s of 320x180 at 25 frames per second, about 400 kbit/s, one key frame per second.
    pub(super) fn embedded() -> Result<Self, ClipError> {
        Self::read(&Bytes::from_static(include_bytes!("class.ivf")))
    }

    /// Parses an IVF file: a 32-byte header (`DKIF`, version, header length, codec, size, rate, scale, count), then
    /// frames of a 12-byte header (length, 64-bit time) and their bytes, all little-endian.
    pub(super) fn read(file: &Bytes) -> Result<Self, ClipError> {
        if file.get(..4) != Some(b"DKIF") || half(file, 6) != Some(32) || file.len() < HEADER {
            return Err(ClipError::NotIvf);
        }
        if file.get(8..12) != Some(b"VP80") {
            return Err(ClipError::NotVp8);
        }
        let rate = word(file, 16).unwrap_or(0);
        let fps = rate.checked_div(word(file, 20).unwrap_or(0)).unwrap_or(0);
        if !(1..=MAX_FPS).contains(&fps) {
            return Err(ClipError::FrameRate);
        }
        let mut frames = Vec::new();
        let mut at = HEADER;
        while at < file.len() {
            let cut = ClipError::Truncated(frames.len());
            let length = word(file, at).filter(|&length| length > 0).ok_or(cut)? as usize;
            let start = at + FRAME_HEADER;
            let end = start.checked_add(length).filter(|&end| end <= file.len()).ok_or(cut)?;
            if frames.len() == MAX_FRAMES {
                return Err(ClipError::FrameCount(MAX_FRAMES + 1));
            }
            frames.push(file.slice(start..end));
            at = end;
        }
        if frames.is_empty() { Err(ClipError::FrameCount(0)) } else { Ok(Self { frames, fps }) }
    }
}

fn half(file: &[u8], at: usize) -> Option<u16> {
    file.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn word(file: &[u8], at: usize) -> Option<u32> {
    file.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Bytes of the file header.
const HEADER: usize = 32;

/// Bytes of a frame's header.
const FRAME_HEADER: usize = 12;

/// Highest accepted frame rate.
const MAX_FPS: u32 = 120;

/// Largest accepted number of frames: 80 s at 25 frames per second.
const MAX_FRAMES: usize = 2_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_embedded_clip_is_six_seconds_of_vp8_and_begins_with_a_key_frame() {
        let clip = Clip::embedded().unwrap();
        assert_eq!((clip.frames.len(), clip.fps), (150, 25));
        let keys: Vec<usize> = (0..150).filter(|&i| clip.frames[i][0] & 1 == 0).collect();
        assert_eq!(keys, [0, 25, 50, 75, 100, 125]);
    }

    #[test]
    fn each_fault_has_its_error() {
        let good = include_bytes!("class.ivf");
        let with = |at: usize, byte: u8| {
            let mut file = good.to_vec();
            file[at] = byte;
            Clip::read(&Bytes::from(file)).unwrap_err()
        };
        assert_eq!(with(0, b'X'), ClipError::NotIvf);
        assert_eq!(with(10, b'9'), ClipError::NotVp8);
        assert_eq!(with(16, 0), ClipError::FrameRate);
        assert_eq!(with(20, 0), ClipError::FrameRate);
        assert_eq!(with(HEADER + 3, 0xff), ClipError::Truncated(0));
        assert_eq!(Clip::read(&Bytes::from_static(&good[..HEADER])).unwrap_err(), ClipError::FrameCount(0));
    }

    proptest! {
        #[test]
        fn cut_anywhere_it_gives_whole_frames_or_an_error(at in 0_usize..4_000) {
            let good = Bytes::from_static(include_bytes!("class.ivf"));
            if let Ok(clip) = Clip::read(&good.slice(..at)) {
                let bytes: usize = clip.frames.iter().map(|frame| frame.len() + FRAME_HEADER).sum();
                prop_assert_eq!(bytes + HEADER, at);
            }
        }
    }
}
