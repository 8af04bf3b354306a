//! Pings along the path to another node: the bytes of a ping and its echo, and what the echoing node remembers. Decides
//! what an echo reports about earlier pings, so that the sender knows in which direction one was lost; all other bytes
//! are refused.
//!
//! A ping is a type byte and its number; an echo is a type byte, the number it answers, the newest number received and
//! a bitmap of the pings received before it. All numbers are big-endian `u64`.

/// Bytes of a ping.
pub const PING_BYTES: usize = 9;

/// Bytes of an echo.
pub const ECHO_BYTES: usize = 1 + 8 + 8 + 8 * BITMAP_WORDS;

/// Pings that an echo covers: the newest received one and those numbered before it.
pub const ECHOED: u64 = 64 * BITMAP_WORDS as u64;

/// The bytes of the ping with this number.
#[must_use]
pub fn ping(number: u64) -> [u8; PING_BYTES] {
    let mut bytes = [PING; PING_BYTES];
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The number of a ping, or `None` where the datagram is none.
#[must_use]
pub fn read_ping(datagram: &[u8]) -> Option<u64> {
    let (&PING, number) = datagram.split_first()? else { return None };
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

/// The pings received, as far back as an echo covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivedPings {
    newest: u64,
    /// Bit `n` over all words: whether `newest - n` was received.
    bits: [u64; BITMAP_WORDS],
}

impl ReceivedPings {
    /// Whether the ping of this number is known to be received.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        let back = self.newest.checked_sub(number).filter(|back| *back < ECHOED);
        back.is_some_and(|back| self.bits[(back / 64) as usize] >> (back % 64) & 1 == 1)
    }

    /// Takes in a ping; gives its echo.
    pub fn take(&mut self, number: u64) -> Echo {
        if number > self.newest {
            self.age(number - self.newest);
            self.newest = number;
        }
        let back = self.newest - number;
        if back < ECHOED {
            self.bits[(back / 64) as usize] |= 1 << (back % 64);
        }
        Echo { number, received: *self }
    }

    /// Shifts all bits by this many numbers into the past.
    fn age(&mut self, by: u64) {
        let (words, bits) = ((by / 64).min(BITMAP_WORDS as u64) as usize, by % 64);
        let old = self.bits;
        for (at, word) in self.bits.iter_mut().enumerate() {
            let from = |back: usize| at.checked_sub(words + back).map_or(0, |at| old[at]);
            let carried = if bits == 0 { 0 } else { from(1) >> (64 - bits) };
            *word = from(0) << bits | carried;
        }
    }
}

/// The answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The number of the ping that is answered.
    pub number: u64,
    /// What the other node received so far, including that ping.
    pub received: ReceivedPings,
}

impl Echo {
    /// The datagram.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ECHO_BYTES] {
        let mut bytes = [ECHO; ECHO_BYTES];
        let words = [self.number, self.received.newest].into_iter().chain(self.received.bits);
        for (place, word) in bytes[1..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// The echo in a datagram, or `None` where it is none or contradicts itself.
    #[must_use]
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let (&ECHO, rest) = datagram.split_first()? else { return None };
        if rest.len() != ECHO_BYTES - 1 {
            return None;
        }
        let mut words = rest.chunks_exact(8).map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        let (number, newest) = (words.next()?, words.next()?);
        let mut bits = [0; BITMAP_WORDS];
        bits.iter_mut().zip(words).for_each(|(place, word)| *place = word);
        let received = ReceivedPings { newest, bits };
        let plausible = newest.checked_sub(number).is_some_and(|back| back >= ECHOED || received.has(number));
        plausible.then_some(Self { number, received })
    }
}

const PING: u8 = 1;
const ECHO: u8 = 2;
/// 64-bit words of the bitmap.
const BITMAP_WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ping_and_its_echo_are_read_back() {
        assert_eq!(read_ping(&ping(7)), Some(7));
        let mut received = ReceivedPings::default();
        for number in [1, 2, 5, 70] {
            received.take(number);
        }
        let echo = received.take(71);
        assert_eq!(Echo::read(&echo.to_bytes()), Some(echo));
        let known: Vec<_> = (0..=71).filter(|number| echo.received.has(*number)).collect();
        assert_eq!(known, [1, 2, 5, 70, 71]);
    }

    #[test]
    fn an_echo_that_contradicts_itself_is_refused() {
        let mut bytes = ReceivedPings::default().take(9).to_bytes();
        bytes[8] = 10;
        assert_eq!(Echo::read(&bytes), None, "newer than the newest");
        bytes[8] = 8;
        assert_eq!(Echo::read(&bytes), None, "it answers a ping that was not received");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read_ping(&bytes).is_some(), bytes.len() == PING_BYTES && bytes[0] == 1);
            if let Some(echo) = Echo::read(&bytes) {
                prop_assert_eq!(&echo.to_bytes()[..], &bytes[..]);
            }
        }

        #[test]
        fn received_pings_are_known_as_far_back_as_an_echo_covers(steps in prop::collection::vec((0_u64..700, any::<bool>()), 1..300)) {
            let (mut received, mut all, mut newest) = (ReceivedPings::default(), BTreeSet::new(), 0_u64);
            for (step, back) in steps {
                let number = if back { newest.saturating_sub(step) } else { newest + step };
                newest = newest.max(number);
                // Older pings than an echo covers are not remembered, so they may be dropped here too.
                if newest - number < ECHOED { all.insert(number); }
                let echo = received.take(number);
                prop_assert_eq!(Echo::read(&echo.to_bytes()), Some(echo));
            }
            for number in newest.saturating_sub(ECHOED - 1)..=newest + 3 {
                prop_assert_eq!(received.has(number), all.contains(&number), "{}", number);
            }
        }
    }
}
