//! One direction of a bad link as a pure queue: loss, a bottleneck with a finite buffer, and delay. Reads no clock and
//! never reorders.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The impairment of a link. The default is a good link: no loss, no delay, no bottleneck.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Share of packets lost at random, independently of each other; 0 to 1.
    pub loss_ratio: f64,
    /// Delay of each packet in one direction; the other has the same.
    pub delay: Duration,
    /// Rate of the bottleneck in bits per second of UDP payload; `None` is no bottleneck.
    pub rate_bits_per_second: Option<u64>,
    /// Largest number of bytes that wait before the bottleneck; a packet that exceeds it is dropped.
    pub queue_bytes: usize,
}

impl Default for Impairment {
    fn default() -> Self {
        Self { loss_ratio: 0.0, delay: Duration::ZERO, rate_bits_per_second: None, queue_bytes: 64 * 1024 }
    }
}

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It will come out.
    Taken,
    /// Lost at random.
    Lost,
    /// Dropped because the queue was full.
    Full,
}

/// The queue: packets before the bottleneck, then packets in flight.
#[derive(Debug)]
pub struct Shaper {
    impairment: Impairment,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    head_since: Option<Instant>,
    flying: VecDeque<(Instant, Vec<u8>)>,
    random: fastrand::Rng,
}

impl Shaper {
    /// A good link; `seed` determines its losses once it is impaired.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            impairment: Impairment::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            head_since: None,
            flying: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Applies to packets pushed from now on, and to the rate at which waiting packets leave.
    pub fn set(&mut self, now: Instant, impairment: Impairment) {
        self.drain(now);
        self.impairment = impairment;
        if let Some(since) = &mut self.head_since {
            *since = now;
        }
        self.drain(now);
    }

    /// Pushes one packet.
    pub fn push(&mut self, now: Instant, packet: &[u8]) -> Fate {
        self.drain(now);
        if self.random.f64() < self.impairment.loss_ratio {
            return Fate::Lost;
        }
        let no_room = self.waiting_bytes + packet.len() > self.impairment.queue_bytes && !self.waiting.is_empty();
        if no_room || self.waiting.len() + self.flying.len() >= MAX_PACKETS {
            return Fate::Full;
        }
        self.waiting_bytes += packet.len();
        self.waiting.push_back(packet.to_vec());
        self.head_since.get_or_insert(now);
        self.drain(now);
        Fate::Taken
    }

    /// The next packet that has come out by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.drain(now);
        if self.flying.front()?.0 > now {
            return None;
        }
        self.flying.pop_front().map(|(_, packet)| packet)
    }

    /// When the next packet comes out or passes the bottleneck, if any is inside.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let lands = self.flying.front().map(|&(due, _)| due);
        let leaves = self.head_leaves();
        lands.into_iter().chain(leaves).min()
    }

    fn head_leaves(&self) -> Option<Instant> {
        let (since, head) = (self.head_since?, self.waiting.front()?);
        let takes = match self.impairment.rate_bits_per_second {
            Some(rate) => Duration::from_secs_f64(head.len() as f64 * 8.0 / rate.max(1) as f64),
            None => Duration::ZERO,
        };
        Some(since + takes)
    }

    /// Moves packets that have passed the bottleneck by `now` into flight.
    fn drain(&mut self, now: Instant) {
        while let Some(left) = self.head_leaves().filter(|&left| left <= now) {
            let Some(packet) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= packet.len();
            self.head_since = (!self.waiting.is_empty()).then_some(left);
            let behind = self.flying.back().map_or(left, |&(due, _)| due);
            self.flying.push_back((behind.max(left + self.impairment.delay), packet));
        }
    }
}

/// Largest number of packets inside, whatever the delay; more are dropped and counted as full.
const MAX_PACKETS: usize = 4_096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bad(loss_ratio: f64, delay_millis: u64, rate: Option<u64>, queue_bytes: usize) -> Impairment {
        Impairment { loss_ratio, delay: Duration::from_millis(delay_millis), rate_bits_per_second: rate, queue_bytes }
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// When each packet comes out, in milliseconds from `start`, polled by [`Shaper::next`].
    fn departures(shaper: &mut Shaper, start: Instant) -> Vec<(u128, u8)> {
        let mut out = Vec::new();
        while let Some(wake) = shaper.next() {
            while let Some(packet) = shaper.pop(wake) {
                out.push(((wake - start).as_millis(), packet[0]));
            }
        }
        out
    }

    #[test]
    fn a_good_link_forwards_immediately() {
        let (mut shaper, now) = (Shaper::new(1), Instant::now());
        assert_eq!(shaper.push(now, &[7; 100]), Fate::Taken);
        assert_eq!(shaper.pop(now), Some(vec![7; 100]));
        assert_eq!((shaper.pop(now), shaper.next()), (None, None));
    }

    #[test]
    fn the_bottleneck_spaces_packets_and_a_full_queue_drops_them() {
        let (mut shaper, now) = (Shaper::new(1), Instant::now());
        shaper.set(now, bad(0.0, 30, Some(80_000), 250));
        let fates: Vec<Fate> = (0..4).map(|i| shaper.push(now, &[i; 100])).collect();
        assert_eq!(fates, [Fate::Taken, Fate::Taken, Fate::Full, Fate::Full]);
        assert_eq!(departures(&mut shaper, now), [(40, 0), (50, 1)]);
    }

    #[test]
    fn a_healed_link_empties_its_queue_without_reordering() {
        let (mut shaper, now) = (Shaper::new(1), Instant::now());
        shaper.set(now, bad(0.0, 500, Some(8_000), 10_000));
        (0..3).for_each(|i| assert_eq!(shaper.push(now, &[i; 100]), Fate::Taken));
        shaper.set(now + millis(150), Impairment::default());
        assert_eq!(shaper.push(now + millis(150), &[3; 100]), Fate::Taken);
        assert_eq!(departures(&mut shaper, now), [(600, 0), (600, 1), (600, 2), (600, 3)]);
    }

    #[test]
    fn the_same_seed_loses_the_same_packets_at_the_configured_ratio() {
        let now = Instant::now();
        let run = |seed| {
            let mut shaper = Shaper::new(seed);
            shaper.set(now, bad(0.1, 0, None, 1_000));
            let fates: Vec<Fate> = (0..20_000)
                .map(|_| {
                    let fate = shaper.push(now, &[0; 10]);
                    while shaper.pop(now).is_some() {}
                    fate
                })
                .collect();
            fates
        };
        assert!(run(5) == run(5) && run(5) != run(6));
        let lost = run(5).iter().filter(|&&fate| fate == Fate::Lost).count();
        assert!((1_830..2_170).contains(&lost), "{lost} of 20,000 at one in ten, four standard errors");
    }

    #[test]
    fn a_long_delay_keeps_a_bounded_number_of_packets() {
        let (mut shaper, now) = (Shaper::new(1), Instant::now());
        shaper.set(now, bad(0.0, 3_600_000, None, 1_000));
        let taken = (0..MAX_PACKETS + 10).filter(|_| shaper.push(now, &[0; 10]) == Fate::Taken).count();
        assert_eq!(taken, MAX_PACKETS);
    }

    proptest! {
        #[test]
        fn accepted_packets_come_out_once_and_in_order(
            steps in prop::collection::vec((0_u64..40, 1_usize..1_200, prop::option::of(0_u64..400_000), 0_u64..80), 1..200)
        ) {
            let start = Instant::now();
            let (mut shaper, mut now) = (Shaper::new(9), start);
            let (mut taken, mut out) = (Vec::new(), Vec::new());
            for (i, (gap, length, rate, delay)) in (0_u32..).zip(steps) {
                now += millis(gap);
                out.extend(std::iter::from_fn(|| shaper.pop(now)));
                shaper.set(now, bad(0.1, delay, rate, 5_000));
                let mut packet = i.to_be_bytes().to_vec();
                packet.resize(length.max(4), 0);
                if shaper.push(now, &packet) == Fate::Taken {
                    taken.push(packet);
                }
                prop_assert!(shaper.waiting_bytes <= 5_000);
            }
            shaper.set(now, Impairment::default());
            while let Some(wake) = shaper.next() {
                out.extend(std::iter::from_fn(|| shaper.pop(wake)));
            }
            prop_assert_eq!(out, taken);
            prop_assert_eq!(shaper.waiting_bytes, 0);
        }
    }
}
