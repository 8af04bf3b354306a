//! Eight bytes of text at once, as a number whose lowest byte comes first: what a loop over them would need eight steps
//! for.

/// The high bit of each byte that is `byte`, up to the first one at least.
#[inline]
pub(crate) const fn equal(word: u64, byte: u8) -> u64 {
    let other = word ^ u64::from_ne_bytes([byte; 8]);
    other.wrapping_sub(ONES) & !other & HIGHS
}

/// All bits of each byte that is one of `a` to `z`.
#[inline]
pub(crate) const fn small_letters(word: u64) -> u64 {
    let low = word & !HIGHS;
    let from_a = low + u64::from_ne_bytes([0x80 - b'a'; 8]);
    let beyond_z = low + u64::from_ne_bytes([0x7f - b'z'; 8]);
    ((from_a & !beyond_z & !word & HIGHS) >> 7) * 0xff
}

/// The high bit of each byte above nine.
#[inline]
pub(crate) const fn over_nine(digits: u64) -> u64 {
    (((digits & !HIGHS) + u64::from_ne_bytes([0x80 - 10; 8])) | digits) & HIGHS
}

/// The number of eight digits, the first one in the lowest byte: pairs, then fours, then all.
#[inline]
pub(crate) const fn eight_digits(digits: u64) -> u64 {
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff
}

/// Eight characters as digits.
#[inline]
pub(crate) const fn less_zeros(eight: [u8; 8]) -> u64 {
    u64::from_le_bytes(eight) ^ u64::from_ne_bytes([b'0'; 8])
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_say_what_a_loop_says(eight: [u8; 8], letters in "[`-{]{8}", number in 0_u64..100_000_000) {
            let word = u64::from_le_bytes(eight);
            let first = eight.iter().position(|byte| *byte == eight[4]).expect("it is there");
            prop_assert_eq!(equal(word, eight[4]).trailing_zeros() as usize / 8, first);
            let nine = less_zeros(eight).to_le_bytes().iter().position(|digit| *digit > 9).unwrap_or(8);
            prop_assert_eq!(over_nine(less_zeros(eight)).trailing_zeros() as usize / 8, nine);
            for eight in [eight, letters.as_bytes().try_into().expect("eight")] {
                let small = eight.map(|byte| if byte.is_ascii_lowercase() { u8::MAX } else { 0 });
                prop_assert_eq!(small_letters(u64::from_le_bytes(eight)).to_le_bytes(), small);
            }
            let text: [u8; 8] = format!("{number:08}").as_bytes().try_into().expect("eight");
            prop_assert_eq!(eight_digits(less_zeros(text)), number);
        }
    }
}
