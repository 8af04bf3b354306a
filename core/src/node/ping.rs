//! Pings along the path to another node: what a ping and its echo look like in a datagram, what the echoing node
//! remembers. Decides what an echo tells of the pings before it, so that the asking node knows on which way one was
//! lost; refuses every other form of bytes.

/// Bytes of a ping.
pub const PING_BYTES: usize = 9;

/// Bytes of an echo.
pub const ECHO_BYTES: usize = 1 + 8 + 8 + 8 * WORDS;

/// Pings that an echo tells of: the newest that came and those numbered before it.
pub const TOLD: u64 = 64 * WORDS as u64;

/// A ping of this number.
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

/// The pings that came, as far back as an echo tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    newest: u64,
    /// Bit `n` of all words together: whether `newest - n` came.
    bits: [u64; WORDS],
}

impl Came {
    /// Whether the ping of this number is known to have come.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        let back = self.newest.checked_sub(number).filter(|back| *back < TOLD);
        back.is_some_and(|back| self.bits[(back / 64) as usize] >> (back % 64) & 1 == 1)
    }

    /// Takes in a ping; gives its echo.
    pub fn take(&mut self, number: u64) -> Echo {
        if number > self.newest {
            self.age(number - self.newest);
            self.newest = number;
        }
        let back = self.newest - number;
        if back < TOLD {
            self.bits[(back / 64) as usize] |= 1 << (back % 64);
        }
        Echo { number, came: *self }
    }

    /// Moves all by so many numbers into the past.
    fn age(&mut self, by: u64) {
        let (words, bits) = ((by / 64).min(WORDS as u64) as usize, by % 64);
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
    /// Of the ping that is answered.
    pub number: u64,
    /// What came to the other node so far, that ping with it.
    pub came: Came,
}

impl Echo {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ECHO_BYTES] {
        let mut bytes = [ECHO; ECHO_BYTES];
        let words = [self.number, self.came.newest].into_iter().chain(self.came.bits);
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
        let mut bits = [0; WORDS];
        bits.iter_mut().zip(words).for_each(|(place, word)| *place = word);
        let came = Came { newest, bits };
        let told = newest.checked_sub(number).is_some_and(|back| back >= TOLD || came.has(number));
        told.then_some(Self { number, came })
    }
}

const PING: u8 = 1;
const ECHO: u8 = 2;
/// Of 64 pings each.
const WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ping_and_its_echo_are_read_back() {
        assert_eq!(read_ping(&ping(7)), Some(7));
        let mut came = Came::default();
        for number in [1, 2, 5, 70] {
            came.take(number);
        }
        let echo = came.take(71);
        assert_eq!(Echo::read(&echo.to_bytes()), Some(echo));
        let told: Vec<_> = (0..=71).filter(|number| echo.came.has(*number)).collect();
        assert_eq!(told, [1, 2, 5, 70, 71]);
    }

    #[test]
    fn an_echo_that_contradicts_itself_is_none() {
        let mut bytes = Came::default().take(9).to_bytes();
        bytes[8] = 10;
        assert_eq!(Echo::read(&bytes), None, "newer than the newest");
        bytes[8] = 8;
        assert_eq!(Echo::read(&bytes), None, "it answers a ping that did not come");
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
        fn what_came_is_known_as_far_back_as_it_is_told(steps in prop::collection::vec((0_u64..700, any::<bool>()), 1..300)) {
            let (mut came, mut all, mut newest) = (Came::default(), BTreeSet::new(), 0_u64);
            for (step, back) in steps {
                let number = if back { newest.saturating_sub(step) } else { newest + step };
                newest = newest.max(number);
                // What is older than an echo tells is not remembered, so it may be forgotten here too.
                if newest - number < TOLD { all.insert(number); }
                let echo = came.take(number);
                prop_assert_eq!(Echo::read(&echo.to_bytes()), Some(echo));
            }
            for number in newest.saturating_sub(TOLD - 1)..=newest + 3 {
                prop_assert_eq!(came.has(number), all.contains(&number), "{}", number);
            }
        }
    }
}
