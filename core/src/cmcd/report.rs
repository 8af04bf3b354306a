//! What a player reports in one request or event: CMCD v1 (CTA-5004) and v2 (CTA-5004-B), typed, borrowed from the
//! payload. Malformed values are skipped one by one and counted; a report of a newer version is refused.

use memchr::memchr;

use super::structured_field::{Cursor, Text};
use crate::base::percent::decode_form;
use crate::model::Protocol;

/// One CMCD report. A key that is absent or malformed is `None` (or `false`). Times are milliseconds, bitrates kbit/s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the standard")]
pub struct Cmcd<'a> {
    /// Version; absent in v1.
    pub v: Option<u32>,
    /// Playback session id.
    pub sid: Option<Text<'a>>,
    /// Content id.
    pub cid: Option<Text<'a>>,
    /// Buffer length.
    pub bl: List,
    /// Encoded bitrate.
    pub br: List,
    /// Starved since the previous report to this target.
    pub bs: bool,
    /// Starvations since the session's start.
    pub bsa: List,
    /// Starvation time that ended since the last report, summed up by type.
    pub bsd: List,
    /// Starvation time since the session's start.
    pub bsda: List,
    /// Object duration.
    pub d: Option<u32>,
    /// Time until the buffer would run dry.
    pub dl: Option<u32>,
    /// Throughput measured by the player.
    pub mtp: List,
    /// Object type.
    pub ot: Option<ObjectType>,
    /// Playback rate in thousandths; absent means 1000.
    pub pr_thousandths: Option<u32>,
    /// Requested maximum throughput.
    pub rtp: Option<u32>,
    /// Streaming format: `d`, `h`, `e`, `s`, `o`.
    pub sf: Option<u8>,
    /// Whether the stream is live; shaka-player 5.2 reports `v` for live streams in its events.
    pub live: Option<bool>,
    /// Player state.
    pub sta: Option<State>,
    /// Urgent: startup, seek or recovery.
    pub su: bool,
    /// Top bitrate.
    pub tb: List,
    /// Time of the event, Unix time; for `rr` when the request began.
    pub ts: Option<u64>,
    /// The event's type; `None` in a request.
    pub e: Option<Event>,
    /// Sequence number of the report, by session, mode and target.
    pub sn: Option<u32>,
    /// Live latency: from origin availability to the screen. Not delivery latency.
    pub ltc: Option<u32>,
    /// Time from starting to playing, reported once.
    pub msd: Option<u32>,
    /// Playhead position.
    pub pt: Option<u64>,
    /// Whether all players are in the background.
    pub bg: Option<bool>,
    /// Frames dropped since the session's start.
    pub dfa: Option<u32>,
    /// Whether the player reported error codes.
    pub ec: bool,
    /// Whether the content is not rendered.
    pub nr: bool,
    /// Number of malformed values.
    pub malformed: u16,
}

/// A value per object type; v1 has one plain value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Without a type, or for muxed audio and video.
    pub plain: Option<u32>,
    /// For video.
    pub video: Option<u32>,
    /// For audio.
    pub audio: Option<u32>,
}

/// The type of the requested object (`ot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectType {
    /// A manifest or playlist.
    Manifest,
    /// Audio.
    Audio,
    /// Video.
    Video,
    /// Muxed audio and video.
    Muxed,
    /// Initialisation data.
    Init,
    /// Anything else: captions, keys, other.
    Other,
}

/// The player's state (`sta`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Starting.
    Starting,
    /// Playing.
    Playing,
    /// Seeking.
    Seeking,
    /// Waiting for data after it has played.
    Rebuffering,
    /// Paused by its user.
    Paused,
    /// Ended, failed or left.
    Over,
    /// Preloading, or waiting (values of early drafts, `d` and `w`).
    Preloading,
}

/// The type of an event (`e`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The player's state changed.
    PlayState,
    /// A report at an interval.
    Interval,
    /// A response was received; its `ts` is when the request began.
    Response,
    /// The player went to the background or returned.
    Background,
    /// Any other.
    Other,
}

/// Why a report is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmcdError {
    /// A version above [`NEWEST_VERSION`]: by the standard the whole report is to be ignored.
    #[error("reading cmcd: version {0} is newer than {NEWEST_VERSION}")]
    Version(u32),
}

impl<'a> Cmcd<'a> {
    /// Reads a decoded payload: the `CMCD` query value after [`decode_form`], one header, or one record of an event
    /// body.
    ///
    /// # Errors
    /// [`CmcdError::Version`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, CmcdError> {
        Self::of_headers([payload])
    }

    /// Reads the `CMCD` query value, still percent-encoded: the same as [`Cmcd::parse`] after [`decode_form`], but
    /// decoded into `scratch` only where `sid` or `cid` contains escapes.
    ///
    /// # Errors
    /// [`CmcdError::Version`].
    pub fn of_query(payload: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Self, CmcdError> {
        let mut cmcd = Self::default();
        cmcd.take_query(payload, scratch)?;
        Ok(cmcd)
    }

    /// As [`Cmcd::of_query`], into an empty report.
    pub(crate) fn take_query(&mut self, payload: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<(), CmcdError> {
        let is_plain = memchr(b'\\', payload).is_none();
        if !is_plain || self.read(Cursor::<true>::of(payload)).is_err() {
            scratch.clear();
            decode_form(payload, scratch);
            *self = Self::default();
            self.read(Cursor::<false>::of(scratch)).unwrap_or_default();
        }
        self.check_version()
    }

    /// Reads the headers `CMCD-Request`, `-Object`, `-Status` and `-Session`, in any order; absent ones are empty.
    ///
    /// # Errors
    /// [`CmcdError::Version`].
    pub(crate) fn of_headers<const N: usize>(headers: [&'a [u8]; N]) -> Result<Self, CmcdError> {
        let mut cmcd = Self::default();
        cmcd.take_headers(headers)?;
        Ok(cmcd)
    }

    /// As [`Cmcd::of_headers`], into an empty report.
    pub(crate) fn take_headers<const N: usize>(&mut self, headers: [&'a [u8]; N]) -> Result<(), CmcdError> {
        for header in headers {
            // Never fails: only an encoded payload may have to be decoded first.
            self.read(Cursor::<false>::of(header)).unwrap_or_default();
        }
        self.check_version()
    }

    const fn check_version(&self) -> Result<(), CmcdError> {
        match self.v {
            Some(version) if version > NEWEST_VERSION => Err(CmcdError::Version(version)),
            _ => Ok(()),
        }
    }

    /// Keeps identity, start time and starvation, and drops what describes the object.
    pub(crate) fn keep_identity(&mut self) {
        *self = Self { sid: self.sid, cid: self.cid, msd: self.msd, bs: self.bs, ..Self::default() };
    }

    /// Whether no key that liveqos reads was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { malformed: self.malformed, ..Self::default() }
    }

    /// HLS or DASH, where the streaming format is one of them.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        match self.sf {
            Some(b'h') => Some(Protocol::Hls),
            Some(b'd') => Some(Protocol::Dash),
            _ => None,
        }
    }
}

impl List {
    /// The value for objects of this type: its own, else the plain one.
    #[must_use]
    pub fn of(&self, kind: Option<ObjectType>) -> Option<u32> {
        match kind {
            Some(ObjectType::Audio) => self.audio.or(self.plain),
            Some(ObjectType::Video) => self.video.or(self.plain),
            _ => self.plain.or(self.video).or(self.audio),
        }
    }
}

/// The records of an event body (`application/cmcd`): separated by LF, trimmed, without empty ones.
pub fn records(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|record| !record.is_empty())
}

/// The newest version understood (CTA-5004-B).
pub const NEWEST_VERSION: u32 = 2;
/// Longest session identifier, bytes (table of CTA-5004-B).
pub const MAX_SID: usize = 64;
/// Longest content identifier, bytes (v2; 64 in v1).
pub(super) const MAX_CID: usize = 128;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_v1_query_as_hls_js_sends_it() {
        let mut scratch = Vec::new();
        decode_form(b"bl%3D4500%2Cbr%3D0%2Ccid%3D%22class101%22%2Cd%3D2000%2Cdl%3D4500%2Cmtp%3D70600%2Crtp%3D0%2Csf%3Dh%2Csid%3D%2211111111-1111%22%2Cst%3Dl%2Csu", &mut scratch);
        let cmcd = Cmcd::parse(&scratch).expect("v1");
        assert_eq!((cmcd.bl.plain, cmcd.d, cmcd.rtp), (Some(4_500), Some(2_000), Some(0)));
        assert_eq!(cmcd.sid.map(Text::raw), Some(&b"11111111-1111"[..]));
        assert_eq!((cmcd.su, cmcd.bs, cmcd.live, cmcd.sf, cmcd.malformed), (true, false, Some(true), Some(b'h'), 0));
        assert_eq!((cmcd.v, cmcd.sta, cmcd.ot), (None, None, None));
    }

    #[test]
    fn a_v2_record_as_dash_js_sends_it() {
        let body = b"bl=(1000;v 3000;a),br=(1503;v 96;a),bs,bsd=(345;v 5;v),e=rr,msd=153,nor=(\"a,b.m4s\"),pr=1.25,sn=8,sta=r,tpb=(1502.681;v 96.316;a),ts=1795405009296,v=2\n\n";
        let record = records(body).next().expect("one record");
        assert_eq!(records(body).count(), 1);
        let cmcd = Cmcd::parse(record).expect("v2");
        assert_eq!((cmcd.bl.of(Some(ObjectType::Audio)), cmcd.bl.of(None)), (Some(3_000), Some(1_000)));
        assert_eq!((cmcd.bsd.video, cmcd.pr_thousandths, cmcd.sn), (Some(350), Some(1_250), Some(8)));
        assert_eq!(
            (cmcd.e, cmcd.sta, cmcd.ts),
            (Some(Event::Response), Some(State::Rebuffering), Some(1_795_405_009_296))
        );
        assert_eq!((cmcd.msd, cmcd.malformed), (Some(153), 0));
    }

    #[test]
    fn malformed_values_are_skipped_one_by_one() {
        let cmcd = Cmcd::parse(b"bl=x,d=2000,sid=\"open,bs=?2,=3,su=?0").expect("v1");
        assert_eq!((cmcd.bl, cmcd.d, cmcd.sid, cmcd.bs, cmcd.su), (List::default(), Some(2_000), None, false, false));
        assert!(cmcd.malformed >= 2, "{cmcd:?}");
        let cmcd = Cmcd::parse(b"ot=zz,sid=\"a\",d=-5,bl=(1 2").expect("v1");
        assert_eq!((cmcd.ot, cmcd.d, cmcd.malformed), (None, None, 3));
        assert_eq!(cmcd.sid.map(Text::raw), Some(&b"a"[..]));
    }

    #[test]
    fn a_newer_version_is_refused() {
        assert_eq!(Cmcd::parse(b"bl=1,v=3"), Err(CmcdError::Version(3)));
    }

    #[test]
    fn headers_are_read_as_one_report() {
        let cmcd = Cmcd::of_headers([&b"bl=4300,dl=4300"[..], b"br=0,d=2000", b"rtp=0", b"cid=\"c\",sid=\"s\\\"1\""])
            .expect("v1");
        assert_eq!((cmcd.bl.plain, cmcd.d), (Some(4_300), Some(2_000)));
        let mut sid = Vec::new();
        cmcd.sid.expect("a sid").write_to(&mut sid);
        assert_eq!(sid, b"s\"1");
    }

    #[test]
    fn what_fuzzing_found_is_read_encoded_as_decoded() {
        let long =
            b",e%52,e=\xff\xc4\xc4\xc4\xc4\xc4\xc4\xc4\xc4\xc4\xc4\xc4\xc4\x08\0\0\0\0\0\0\0\xc4\xc4\x30\xff%20=";
        for text in [&b"+d.=]4%=+%0A"[..], b"s%69d=%22a%22,bs", b"d%2dx=1,d%2Dx", long] {
            let (mut scratch, mut decoded) = (Vec::new(), Vec::new());
            decode_form(text, &mut decoded);
            assert_eq!(Cmcd::of_query(text, &mut scratch), Cmcd::parse(&decoded), "{}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut scratch = Vec::new();
            decode_form(&bytes, &mut scratch);
            drop(Cmcd::parse(&scratch));
            for record in records(&bytes) {
                drop(Cmcd::parse(record));
            }
        }

        #[test]
        fn encoded_and_decoded_say_the_same(text in "((bl|bs|cid|sid|d|v|sta|nor|x-y|pr|bsd)(=|%3D|%3d)?(\\(|%28)?[0-9a-z%+\",;.) \\\\?]{0,12}(,|%2C|%2c)){0,6}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for query in [text.as_bytes(), &bytes] {
                let (mut scratch, mut decoded) = (Vec::new(), Vec::new());
                decode_form(query, &mut decoded);
                prop_assert_eq!(Cmcd::of_query(query, &mut scratch), Cmcd::parse(&decoded), "{:?}", String::from_utf8_lossy(query));
            }
        }

        #[test]
        fn what_was_written_is_read(bl in 0_u32..100_000, d in 0_u32..20_000, sn: u32, ts in 0_u64..2_000_000_000_000, bs: bool, sid in "[ -~]{1,30}") {
            let mut text = format!("bl=({bl};v {};a),{}d={d},sid=\"", bl / 2, if bs { "bs," } else { "" });
            for c in sid.chars() {
                if matches!(c, '"' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
            write!(text, "\",sn={sn},ts={ts},v=2").expect("a String takes all");
            let mut encoded = String::new();
            for byte in text.bytes() {
                write!(encoded, "%{byte:02X}").expect("a String takes all");
            }
            let mut scratch = Vec::new();
            decode_form(encoded.as_bytes(), &mut scratch);
            let mut again = Vec::new();
            prop_assert_eq!(Cmcd::of_query(encoded.as_bytes(), &mut again), Cmcd::parse(&scratch));
            let cmcd = Cmcd::parse(&scratch).expect("v2");
            prop_assert_eq!((cmcd.bl.video, cmcd.bl.audio, cmcd.d), (Some(bl), Some(bl / 2), Some(d)));
            prop_assert_eq!((cmcd.sn, cmcd.ts, cmcd.bs, cmcd.malformed), (Some(sn), Some(ts), bs, 0));
            let mut read = Vec::new();
            cmcd.sid.expect("a sid").write_to(&mut read);
            prop_assert_eq!(read, sid.as_bytes());
        }
    }
}
