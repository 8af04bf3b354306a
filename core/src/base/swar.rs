//! Eight bytes of text at once, as one little-endian number (SIMD within a register).

/// The high bit of each byte equal to `byte`; exact up to the first match, which is all that callers use.
#[inline]
pub(crate) const fn byte_matches(word: u64, byte: u8) -> u64 {
    let other = word ^ u64::from_ne_bytes([byte; 8]);
    other.wrapping_sub(ONES) & !other & HIGH_BITS
}

/// All bits of each byte from `a` to `z`.
#[inline]
pub(crate) const fn lowercase_mask(word: u64) -> u64 {
    let low = word & !HIGH_BITS;
    let from_a = low + u64::from_ne_bytes([0x80 - b'a'; 8]);
    let beyond_z = low + u64::from_ne_bytes([0x7f - b'z'; 8]);
    ((from_a & !beyond_z & !word & HIGH_BITS) >> 7) * 0xff
}

/// The high bit of each byte above nine.
#[inline]
pub(crate) const fn non_digits(digits: u64) -> u64 {
    (((digits & !HIGH_BITS) + u64::from_ne_bytes([0x80 - 10; 8])) | digits) & HIGH_BITS
}

/// The value of eight decimal digits, the first one in the lowest byte: pairs, then fours, then all.
#[inline]
pub(crate) const fn parse_eight_digits(digits: u64) -> u64 {
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff
}

/// Eight ASCII characters as digit values; other characters give values above nine.
#[inline]
pub(crate) const fn digit_values(chunk: [u8; 8]) -> u64 {
    u64::from_le_bytes(chunk) ^ u64::from_ne_bytes([b'0'; 8])
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn results_equal_those_of_a_loop(chunk: [u8; 8], letters in "[`-{]{8}", number in 0_u64..100_000_000) {
            let word = u64::from_le_bytes(chunk);
            let first = chunk.iter().position(|byte| *byte == chunk[4]).expect("it is there");
            prop_assert_eq!(byte_matches(word, chunk[4]).trailing_zeros() as usize / 8, first);
            let nine = digit_values(chunk).to_le_bytes().iter().position(|digit| *digit > 9).unwrap_or(8);
            prop_assert_eq!(non_digits(digit_values(chunk)).trailing_zeros() as usize / 8, nine);
            for chunk in [chunk, letters.as_bytes().try_into().expect("eight")] {
                let small = chunk.map(|byte| if byte.is_ascii_lowercase() { u8::MAX } else { 0 });
                prop_assert_eq!(lowercase_mask(u64::from_le_bytes(chunk)).to_le_bytes(), small);
            }
            let text: [u8; 8] = format!("{number:08}").as_bytes().try_into().expect("eight");
            prop_assert_eq!(parse_eight_digits(digit_values(text)), number);
        }
    }
}
