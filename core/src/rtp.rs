//! Sequence, loss and jitter accounting of one RTP stream (RFC 3550 appendices A.1, A.3 and A.8). Decides which packets
//! were expected, seen, seen twice or seen late; refuses to guess at packets it never saw and to mix two streams (SSRCs).

use std::time::Duration;

use crate::time::Timestamp;

/// What one packet turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// First sight of this sequence number. Carries its position in the stream: the sequence number unwrapped past 16
    /// bits, the same for every packet of an unbroken stream and 65,536 higher after each wrap.
    New(u64),
    /// A sequence number that was seen before, within the last [`MAX_MISORDER`] packets.
    Duplicate(u64),
    /// A jump too large to be loss. Not counted; the next packet in order makes it a restart (RFC 3550 A.1 `bad_seq`).
    Suspect,
    /// The second packet in order after a jump: the stream restarted, and this packet is the first of its new base.
    Restart(u64),
}

/// Running totals of one stream since its first packet; they outlive restarts of its sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceptionTotals {
    /// Packets the sender is known to have sent: highest minus lowest sequence number plus one (RFC 3550 A.3 `expected`).
    pub expected: u64,
    /// Packets counted, duplicates and late ones included (RFC 3550 A.1 `received`).
    pub received: u64,
    /// `expected - received`: negative when duplicates outnumber losses (RFC 3550 6.4.1, W3C `packetsLost`). Before repair.
    pub lost: i64,
    /// Sequence numbers inside the expected range that were never seen: `lost` without the duplicates' discount.
    pub missing: u64,
    /// Packets whose sequence number had been seen before.
    pub duplicates: u64,
    /// First sights that came after a packet with a higher sequence number.
    pub reordered: u64,
    /// Packets that began a jump: left out of every other count, whether the next packet confirmed the jump or not.
    pub suspect: u64,
    /// How often the stream was taken up at a new base.
    pub restarts: u64,
}

/// The receiver's book of one RTP stream. A few words of memory, whatever the stream does.
///
/// ```
/// use liveqos_core::{rtp::Reception, time::Timestamp};
/// let mut book = Reception::default();
/// for (i, seq) in [65_534_u16, 65_535, 1, 2].into_iter().enumerate() {
///     book.packet(seq, 3_000 * i as u32, 90_000, Timestamp::from_millis(33 * i as u64));
/// }
/// assert_eq!((book.totals().expected, book.totals().lost), (5, 1));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Reception {
    run: Option<Run>,
    closed: ReceptionTotals,
    bad_seq: Option<u16>,
    jitter: Jitter,
}

impl Reception {
    /// Accounts for one packet: its sequence number, RTP timestamp and clock rate in hertz, and when it came.
    /// Unlike RFC 3550 A.1 there is no probation: the first packet opens the stream, as the stream was negotiated.
    pub fn packet(&mut self, seq: u16, rtp_time: u32, clock_rate: u32, arrival: Timestamp) -> Arrival {
        let seen = self.place(seq);
        match seen {
            Arrival::New(position) if self.run.is_some_and(|run| run.highest == position) => {
                self.jitter.packet(rtp_time, clock_rate, arrival);
            }
            Arrival::Restart(_) => self.jitter.restart(rtp_time, clock_rate, arrival),
            _ => {}
        }
        seen
    }

    /// The counts so far.
    #[must_use]
    pub fn totals(&self) -> ReceptionTotals {
        let mut totals = self.closed;
        if let Some(run) = self.run {
            totals.expected = totals.expected.saturating_add(run.expected());
        }
        totals.lost = signed(totals.expected).saturating_sub(signed(totals.received));
        totals.missing = totals.expected.saturating_sub(totals.received.saturating_sub(totals.duplicates));
        totals
    }

    /// The highest sequence number with its wrap count in the upper half, as receiver reports carry it (RFC 3550 6.4.1).
    /// A restart goes on in a later cycle.
    #[must_use]
    pub fn extended_highest(&self) -> Option<u32> {
        self.run.map(|run| (run.highest - FIRST_CYCLE) as u32)
    }

    /// Interarrival jitter (RFC 3550 A.8), fed one packet a frame so that the packets of one frame, which share a
    /// timestamp, do not inflate it. `None` until two frames came.
    #[must_use]
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter.value()
    }

    fn place(&mut self, seq: u16) -> Arrival {
        let Some(run) = &mut self.run else { return self.open(seq) };
        let ahead = seq.wrapping_sub(run.highest as u16);
        if ahead == 0 || u32::from(ahead) > SEQ_MOD - MAX_MISORDER {
            let back = (SEQ_MOD - u32::from(ahead)) % SEQ_MOD;
            self.closed.received = self.closed.received.saturating_add(1);
            self.bad_seq = None;
            let position = run.highest - u64::from(back);
            if run.mark_late(back) {
                self.closed.reordered = self.closed.reordered.saturating_add(1);
                return Arrival::New(position);
            }
            self.closed.duplicates = self.closed.duplicates.saturating_add(1);
            return Arrival::Duplicate(position);
        }
        if u32::from(ahead) < MAX_DROPOUT {
            run.advance(ahead);
            self.closed.received = self.closed.received.saturating_add(1);
            self.bad_seq = None;
            return Arrival::New(run.highest);
        }
        if self.bad_seq == Some(seq) {
            return self.restart(seq);
        }
        self.closed.suspect = self.closed.suspect.saturating_add(1);
        self.bad_seq = Some(seq.wrapping_add(1));
        Arrival::Suspect
    }

    fn open(&mut self, seq: u16) -> Arrival {
        let run = Run::new(FIRST_CYCLE + u64::from(seq));
        self.run = Some(run);
        self.closed.received = self.closed.received.saturating_add(1);
        Arrival::New(run.highest)
    }

    /// Takes the stream up at `seq`, in a cycle of its own so that positions never repeat.
    fn restart(&mut self, seq: u16) -> Arrival {
        let next_cycle = self.run.map_or(FIRST_CYCLE, |run| (run.highest | 0xffff) + 1);
        if let Some(run) = self.run {
            self.closed.expected = self.closed.expected.saturating_add(run.expected());
        }
        let run = Run::new(next_cycle + u64::from(SEQ_MOD) + u64::from(seq));
        self.run = Some(run);
        self.bad_seq = None;
        self.closed.received = self.closed.received.saturating_add(1);
        self.closed.restarts = self.closed.restarts.saturating_add(1);
        Arrival::Restart(run.highest)
    }
}

/// One unbroken run of sequence numbers: its ends, and which of the newest 128 were seen (bit i: `highest - i`).
#[derive(Clone, Copy, Debug)]
struct Run {
    lowest: u64,
    highest: u64,
    seen: u128,
}

impl Run {
    const fn new(position: u64) -> Self {
        Self { lowest: position, highest: position, seen: 1 }
    }

    const fn expected(&self) -> u64 {
        self.highest - self.lowest + 1
    }

    fn advance(&mut self, by: u16) {
        self.highest += u64::from(by);
        self.seen = self.seen.checked_shl(u32::from(by)).unwrap_or(0) | 1;
    }

    /// Marks the packet `back` before the newest; true when it had not been seen. A packet from before the first one
    /// widens the range: it proves that the stream began earlier.
    fn mark_late(&mut self, back: u32) -> bool {
        let bit = 1_u128.checked_shl(back).unwrap_or(0);
        if self.seen & bit != 0 {
            return false;
        }
        self.seen |= bit;
        self.lowest = self.lowest.min(self.highest - u64::from(back));
        true
    }
}

/// RFC 3550 A.8 in clock units, kept as a real number so that small jitter is not rounded away.
#[derive(Clone, Copy, Debug, Default)]
struct Jitter {
    last: Option<(u32, u32, Timestamp)>,
    units: Option<f64>,
    clock_rate: u32,
}

impl Jitter {
    fn packet(&mut self, rtp_time: u32, clock_rate: u32, arrival: Timestamp) {
        let Some((last_time, last_rate, last_arrival)) = self.last else {
            return self.restart(rtp_time, clock_rate, arrival);
        };
        if rtp_time == last_time {
            return;
        }
        self.last = Some((rtp_time, clock_rate, arrival));
        if clock_rate == 0 || clock_rate != last_rate || arrival < last_arrival {
            return;
        }
        let elapsed = arrival.since(last_arrival);
        let media = f64::from(rtp_time.wrapping_sub(last_time).cast_signed());
        let moved = elapsed.as_secs_f64() * f64::from(clock_rate) - media;
        if elapsed > MAX_STEP || moved.abs() > MAX_STEP.as_secs_f64() * f64::from(clock_rate) {
            return;
        }
        let units = self.units.unwrap_or(0.0);
        self.units = Some(units + (moved.abs() - units) / 16.0);
        self.clock_rate = clock_rate;
    }

    /// Starts a new pair of packets; the estimate so far is kept.
    fn restart(&mut self, rtp_time: u32, clock_rate: u32, arrival: Timestamp) {
        self.last = Some((rtp_time, clock_rate, arrival));
    }

    fn value(&self) -> Option<Duration> {
        let seconds = self.units? / f64::from(self.clock_rate.max(1));
        Duration::try_from_secs_f64(seconds).ok()
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Sequence numbers are counted modulo this (RFC 3550 A.1 `RTP_SEQ_MOD`).
const SEQ_MOD: u32 = 1 << 16;

/// Positions begin here, so that a packet from before the first one, across a wrap, still has a position.
const FIRST_CYCLE: u64 = 1 << 32;

/// Steps forward of this many packets or more are jumps, not loss (RFC 3550 A.1 `MAX_DROPOUT`).
pub const MAX_DROPOUT: u32 = 3_000;

/// Packets this far behind the newest or farther are jumps, not reordering (RFC 3550 A.1 `MAX_MISORDER`).
pub const MAX_MISORDER: u32 = 100;

/// Frames farther apart than this say nothing about jitter: the sender paused or its clock was set.
const MAX_STEP: Duration = Duration::from_secs(5);
