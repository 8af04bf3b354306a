//! Sequence, loss and jitter accounting of one RTP stream (RFC 3550 appendices A.1, A.3 and A.8): which packets were
//! expected, received, repeated or reordered. One SSRC only; nothing is assumed about packets never seen.
//!
//! Only the demonstration (`liveqos demo`) uses it today: media servers report their own packet counts.

use std::time::Duration;

use crate::model::Timestamp;

/// What one packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// First receipt of this sequence number. Contains its position in the stream: the sequence number unwrapped past
    /// 16 bits, the same for every packet of an unbroken stream and 65,536 higher after each wrap.
    New(u64),
    /// A sequence number that was received before, within the last [`MAX_MISORDER`] packets.
    Duplicate(u64),
    /// A jump too large to be loss. Not counted; the next packet in order makes it a restart (RFC 3550 A.1 `bad_seq`).
    Suspect,
    /// The second packet in order after a jump: the stream restarted, and this packet is the first of its new base.
    Restart(u64),
}

/// Running totals of one stream since its first packet, across restarts of its sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceptionTotals {
    /// Packets the sender is known to have sent: highest minus lowest sequence number plus one (RFC 3550 A.3
    /// `expected`).
    pub expected: u64,
    /// Packets counted, duplicates and reordered ones included (RFC 3550 A.1 `received`).
    pub received: u64,
    /// `expected - received`: negative when duplicates outnumber losses (RFC 3550 6.4.1, W3C `packetsLost`). Before
    /// repair.
    pub lost: i64,
    /// Sequence numbers within the expected range that were never received: `lost` without the duplicates.
    pub missing: u64,
    /// Packets whose sequence number had been seen before.
    pub duplicates: u64,
    /// First receipts after a packet with a higher sequence number.
    pub reordered: u64,
    /// Packets that began a jump: not part of any other count, whether the next packet confirmed the jump or not.
    pub suspect: u64,
    /// How often the stream restarted at a new base.
    pub restarts: u64,
}

/// The reception of one RTP stream, in a few bytes of memory, whatever the stream does.
///
/// ```
/// use liveqos_core::{media::Reception, model::Timestamp};
/// let mut reception = Reception::default();
/// for (i, seq) in [65_534_u16, 65_535, 1, 2].into_iter().enumerate() {
///     reception.packet(seq, 3_000 * i as u32, 90_000, Timestamp::from_millis(33 * i as u64));
/// }
/// assert_eq!((reception.totals().expected, reception.totals().lost), (5, 1));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Reception {
    run: Option<Run>,
    closed: ReceptionTotals,
    bad_seq: Option<u16>,
    jitter: Jitter,
}

impl Reception {
    /// Accounts for one packet: its sequence number, RTP timestamp, clock rate in hertz, and arrival. Unlike RFC 3550
    /// A.1 there is no probation: the first packet starts the stream, since the stream was negotiated.
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

    /// The highest sequence number with its wrap count in the upper half, as receiver reports contain it (RFC 3550
    /// 6.4.1). A restart continues in a later cycle.
    #[must_use]
    pub fn extended_highest(&self) -> Option<u32> {
        self.run.map(|run| (run.highest - FIRST_CYCLE) as u32)
    }

    /// Interarrival jitter (RFC 3550 A.8), of one packet per frame: the packets of a frame share a timestamp and would
    /// inflate it. `None` until two frames were received.
    #[must_use]
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter.value()
    }

    fn place(&mut self, seq: u16) -> Arrival {
        let Some(run) = &mut self.run else {
            return self.open(seq);
        };
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

    /// Restarts the stream at `seq`, in a cycle of its own so that positions never repeat.
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

/// An unbroken run of sequence numbers: its ends, and which of the newest 128 were received (bit i: `highest - i`).
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

    /// Marks the packet `back` before the newest; true when it is received for the first time. A packet from before the
    /// first one extends the range: it proves that the stream began earlier.
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

/// RFC 3550 A.8 in clock units, as a real number so that small jitter is not rounded away.
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
pub(super) const MAX_DROPOUT: u32 = 3_000;

/// Packets this far behind the newest or farther are jumps, not reordering (RFC 3550 A.1 `MAX_MISORDER`).
pub(super) const MAX_MISORDER: u32 = 100;

/// Frames farther apart than this are no measure of jitter: the sender paused or its clock was set.
const MAX_STEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const RATE: u32 = 90_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn feed(reception: &mut Reception, seqs: &[u16]) -> Vec<Arrival> {
        seqs.iter().map(|&seq| reception.packet(seq, 0, RATE, at(0))).collect()
    }

    #[test]
    fn duplicates_make_lost_negative_but_not_missing() {
        let mut reception = Reception::default();
        feed(&mut reception, &[10, 11, 11, 11, 13]);
        let totals = reception.totals();
        assert_eq!((totals.expected, totals.received, totals.lost), (4, 5, -1));
        assert_eq!((totals.missing, totals.duplicates, totals.reordered), (1, 2, 0));
    }

    #[test]
    fn a_packet_from_before_the_first_widens_the_stream_across_the_wrap() {
        let mut reception = Reception::default();
        let seen = feed(&mut reception, &[0, 65_535, 1]);
        assert_eq!(seen, [FIRST_CYCLE, FIRST_CYCLE - 1, FIRST_CYCLE + 1].map(Arrival::New));
        assert_eq!((reception.totals().expected, reception.totals().lost, reception.totals().reordered), (3, 0, 1));
        assert_eq!(reception.extended_highest(), Some(1));
    }

    #[test]
    fn extended_highest_counts_wraps_in_its_upper_half() {
        let mut reception = Reception::default();
        let seqs: Vec<u16> = (0..200_000_u32).step_by(1_000).map(|seq| seq as u16).collect();
        feed(&mut reception, &seqs);
        assert_eq!(reception.extended_highest(), Some(199_000));
        assert_eq!(reception.totals().expected, 199_001);
    }

    #[test]
    fn steps_at_the_limits_are_loss_or_reordering_and_beyond_are_suspect() {
        let one_step = |seq: u16| {
            let mut reception = Reception::default();
            feed(&mut reception, &[30_000, seq])[1]
        };
        assert_eq!(one_step(32_999), Arrival::New(FIRST_CYCLE + 32_999));
        assert_eq!(one_step(33_000), Arrival::Suspect);
        assert_eq!(one_step(29_901), Arrival::New(FIRST_CYCLE + 29_901));
        assert_eq!(one_step(29_900), Arrival::Suspect);
    }

    #[test]
    fn two_in_order_after_a_jump_restart_the_stream_and_keep_the_past() {
        let mut reception = Reception::default();
        feed(&mut reception, &[1, 2, 4]);
        let seen = feed(&mut reception, &[40_000, 40_001, 40_003, 39_999]);
        assert_eq!(seen[0], Arrival::Suspect);
        let Arrival::Restart(base) = seen[1] else { panic!("no restart: {seen:?}") };
        assert!(base > FIRST_CYCLE + 4);
        assert_eq!(seen[2..], [Arrival::New(base + 2), Arrival::New(base - 2)]);
        let totals = reception.totals();
        assert_eq!((totals.restarts, totals.suspect, totals.expected), (1, 1, 4 + 5));
        assert_eq!((totals.received, totals.lost, totals.missing), (6, 3, 3));
    }

    #[test]
    fn a_stray_packet_neither_restarts_nor_counts() {
        let mut reception = Reception::default();
        feed(&mut reception, &[1, 50_000, 2, 50_001, 3]);
        let totals = reception.totals();
        assert_eq!((totals.restarts, totals.suspect, totals.expected, totals.lost), (0, 2, 3, 0));
    }

    #[test]
    fn jitter_is_absent_until_two_frames_and_blind_to_bursts_and_pauses() {
        let mut reception = Reception::default();
        assert_eq!(reception.jitter(), None);
        for (seq, (frame, millis)) in [(0, 0), (0, 9), (1, 40), (1, 49), (2, 80), (3, 120)].into_iter().enumerate() {
            reception.packet(seq as u16, frame * 3_600, RATE, at(millis));
        }
        assert_eq!(reception.jitter(), Some(Duration::ZERO));
        reception.packet(6, 4 * 3_600, RATE, at(60_000));
        assert_eq!(reception.jitter(), Some(Duration::ZERO), "a pause is not jitter");
        reception.packet(7, 5 * 3_600, RATE, at(60_056));
        assert_eq!(reception.jitter(), Some(Duration::from_millis(1)), "16 ms late, one sixteenth of it");
        reception.packet(8, 6 * 3_600, 0, at(60_100));
        assert_eq!(reception.jitter(), Some(Duration::from_millis(1)), "a clock rate of zero is ignored");
    }

    /// The totals computed from the true positions, all of them kept.
    fn oracle(order: &[u64]) -> ReceptionTotals {
        let mut seen = BTreeSet::new();
        let mut totals = ReceptionTotals { received: order.len() as u64, ..ReceptionTotals::default() };
        for &position in order {
            let late = seen.last().is_some_and(|&highest| position < highest);
            if !seen.insert(position) {
                totals.duplicates += 1;
            } else if late {
                totals.reordered += 1;
            }
        }
        totals.expected = seen.last().unwrap() - seen.first().unwrap() + 1;
        totals.missing = totals.expected - seen.len() as u64;
        totals.lost = totals.expected.cast_signed() - totals.received.cast_signed();
        totals
    }

    /// True positions in order of arrival: some deleted, some twice, each displaced by less than `MAX_MISORDER / 2`.
    fn arrivals() -> impl Strategy<Value = Vec<u64>> {
        let start = prop_oneof![65_000_u64..65_700, 0_u64..200_000];
        let packets = prop::collection::vec((0_u8..10, 0_u64..45, 0_u64..45), 2..700);
        (start, packets).prop_map(|(start, packets)| {
            let mut keyed: Vec<(u64, u64)> = Vec::new();
            for (i, (fate, early, late)) in (0_u64..).zip(packets) {
                if fate > 1 || i == 0 {
                    keyed.push((i + if fate == 2 { early } else { 0 }, start + i));
                }
                if fate == 3 {
                    keyed.push((i + late, start + i));
                }
            }
            keyed.sort_by_key(|&(key, _)| key);
            keyed.into_iter().map(|(_, position)| position).collect()
        })
    }

    proptest! {
        #[test]
        fn counts_match_the_true_positions(order in arrivals()) {
            let mut reception = Reception::default();
            let mut offset = None;
            for &position in &order {
                let seen = reception.packet(position as u16, 0, RATE, at(0));
                let (Arrival::New(actual) | Arrival::Duplicate(actual)) = seen else {
                    return Err(TestCaseError::fail(format!("{seen:?} at {position}")));
                };
                prop_assert_eq!(actual.wrapping_sub(position), *offset.get_or_insert(actual.wrapping_sub(position)));
            }
            prop_assert_eq!(reception.totals(), oracle(&order));
        }

        #[test]
        fn any_packets_keep_the_counts_consistent(
            packets in prop::collection::vec((any::<u16>(), any::<u32>(), prop_oneof![Just(RATE), any::<u32>()], any::<u64>()), 0..300)
        ) {
            let mut reception = Reception::default();
            for (seq, rtp_time, rate, nanos) in &packets {
                reception.packet(*seq, *rtp_time, *rate, Timestamp::from_nanos(*nanos));
            }
            let totals = reception.totals();
            prop_assert_eq!(totals.received + totals.suspect, packets.len() as u64);
            prop_assert!(totals.duplicates + totals.reordered <= totals.received);
            prop_assert_eq!(totals.missing.cast_signed(), totals.lost + totals.duplicates.cast_signed());
        }

        #[test]
        fn jitter_is_the_formula_over_first_packets_of_frames(
            start in any::<u32>(),
            frames in prop::collection::vec((20_u64..80, 1_u16..4), 2..200)
        ) {
            let mut reception = Reception::default();
            let (mut millis, mut seq, mut units, mut before) = (0, 65_500_u16, 0.0_f64, None);
            for (i, (gap, packets)) in (0_u32..).zip(frames) {
                millis += gap;
                for packet in 0..packets {
                    reception.packet(seq, start.wrapping_add(i * 3_600), RATE, at(millis + u64::from(packet)));
                    seq = seq.wrapping_add(1);
                }
                let transit = millis as f64 * 90.0 - f64::from(i) * 3_600.0;
                if let Some(before) = before.replace(transit) {
                    units += ((transit - before).abs() - units) / 16.0;
                }
            }
            let actual = reception.jitter().unwrap().as_secs_f64();
            prop_assert!((actual - units / 90_000.0).abs() < 1e-7, "{actual} against {}", units / 90_000.0);
        }
    }

    struct Dumped {
        offset_millis: u32,
        packet: Vec<u8>,
    }

    /// Reads an rtpdump file: a line of text, a 16-byte header, then records of length, packet length and offset.
    fn rtpdump(file: &[u8]) -> Vec<Dumped> {
        let mut rest = &file[file.iter().position(|&byte| byte == b'\n').unwrap() + 1 + 16..];
        let mut records = Vec::new();
        while rest.len() >= 8 {
            let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
            let offset_millis = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]);
            records.push(Dumped { offset_millis, packet: rest[8..length].to_vec() });
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        records
    }

    /// Feeds the RTP of a dump, its numbers shifted by `shift`; returns the reception, the number of frames (markers)
    /// and of RTCP packets.
    fn replay(file: &[u8], payload_type: u8, shift: (u16, u32)) -> (Reception, usize, usize) {
        let mut reception = Reception::default();
        let (mut markers, mut rtcp, mut frames) = (0, 0, BTreeSet::new());
        for Dumped { offset_millis, packet } in rtpdump(file) {
            if (192..=223).contains(&packet[1]) {
                rtcp += 1;
                continue;
            }
            assert_eq!((packet[1] & 0x7f, &packet[8..12]), (payload_type, &1337_u32.to_be_bytes()[..]));
            let seq = u16::from_be_bytes([packet[2], packet[3]]).wrapping_add(shift.0);
            let rtp_time = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]).wrapping_add(shift.1);
            reception.packet(seq, rtp_time, RATE, at(u64::from(offset_millis)));
            markers += usize::from(packet[1] & 0x80 != 0);
            frames.insert(rtp_time);
        }
        assert_eq!(frames.len(), markers);
        (reception, markers, rtcp)
    }

    #[test]
    fn real_vp8_and_vp9_have_the_known_counts_wherever_their_numbers_wrap() {
        let vp8 = include_bytes!("../../fixtures/rtpdump/vp8.rtpdump");
        let vp9 = include_bytes!("../../fixtures/rtpdump/vp9.rtpdump");
        for (file, payload_type, packets, frames, rtcp) in [(&vp8[..], 125, 171, 120, 4), (&vp9[..], 124, 187, 119, 6)]
        {
            let (plain, markers, others) = replay(file, payload_type, (0, 0));
            let all = ReceptionTotals { expected: packets, received: packets, ..ReceptionTotals::default() };
            assert_eq!((plain.totals(), markers, others), (all, frames, rtcp));
            let jitter = plain.jitter().unwrap();
            assert!(jitter > Duration::ZERO && jitter < Duration::from_millis(100), "{jitter:?}");
            for shift in (0..=65_000).step_by(500) {
                let (moved, ..) = replay(file, payload_type, (shift, u32::from(shift) << 16));
                assert_eq!((moved.totals(), moved.jitter()), (all, plain.jitter()), "moved by {shift}");
            }
        }
    }
}
