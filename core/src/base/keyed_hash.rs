//! A keyed hash (SipHash-1-3) of what identifies viewers, so that no identifier is kept and nobody can aim collisions
//! at the tables. The key is an argument, since core has no randomness.

/// The hash of `parts` under `key`; the division into parts matters: ("a", "bc") and ("ab", "c") differ.
#[must_use]
pub(crate) fn sip_hash(key: [u64; 2], parts: &[&[u8]]) -> u64 {
    let [k0, k1] = key;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut length = 0_u64;
    let mut word = 0_u64;
    let mut feed = |byte: u8, v: &mut [u64; 4]| {
        word |= u64::from(byte) << (8 * (length % 8));
        length += 1;
        if length.is_multiple_of(8) {
            compress(v, word);
            word = 0;
        }
    };
    let (first, others) = parts.split_first().map_or((&b""[..], &[][..]), |(first, others)| (*first, others));
    let (words, rest) = first.as_chunks::<8>();
    for word in words {
        compress(&mut v, u64::from_le_bytes(*word));
    }
    for byte in rest {
        feed(*byte, &mut v);
    }
    for part in others {
        feed(SEPARATOR, &mut v);
        for byte in *part {
            feed(*byte, &mut v);
        }
    }
    length += words.len() as u64 * 8;
    compress(&mut v, word | (length << 56));
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline]
fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

#[inline]
const fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// The hasher of tables whose keys are keyed hashes already: it passes them through.
pub(crate) type Hashed = std::hash::BuildHasherDefault<IdentityHasher>;

/// See [`Hashed`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdentityHasher(u64);

impl std::hash::Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Separates two parts: this byte does not occur in UTF-8 text.
const SEPARATOR: u8 = 0xff;

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use super::*;

    #[test]
    fn it_equals_the_hash_of_the_standard_library() {
        for length in 0..40_u8 {
            let bytes: Vec<u8> = (0..length).collect();
            let mut reference = std::hash::DefaultHasher::new();
            reference.write(&bytes);
            assert_eq!(sip_hash([0, 0], &[&bytes]), reference.finish(), "{length}");
        }
    }

    #[test]
    fn key_and_parts_matter() {
        let hash = |parts: &[&[u8]]| sip_hash([1, 2], parts);
        assert_ne!(hash(&[b"a", b"bc"]), hash(&[b"ab", b"c"]));
        assert_ne!(hash(&[b"a"]), sip_hash([1, 3], &[b"a"]));
    }
}
