//! Hexadecimal text: the one reader and writer of the workspace. Writes lower case; reads both cases.

use std::fmt;

/// Bytes that are displayed as two lower-case digits each.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.iter().flat_map(|byte| digits(*byte)).try_for_each(|digit| f.write_char(digit))
    }
}

/// `bytes` as text, two lower-case digits each.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).collect()
}

/// The bytes that `text` writes; `None` where it is not whole pairs of digits.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    pairs.iter().map(|[high, low]| byte(*high, *low)).collect()
}

/// As [`decode`], for exactly `N` bytes.
#[must_use]
pub fn decode_array<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    let pairs: &[[u8; 2]; N] = pairs.try_into().ok()?;
    let mut out = [0; N];
    for (out, [high, low]) in out.iter_mut().zip(pairs) {
        *out = byte(*high, *low)?;
    }
    Some(out)
}

/// A number of 1 to 16 digits, without sign or prefix.
#[must_use]
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter()
        .try_fold(0, |number, digit| Some(number << 4 | u64::from(Some(value(*digit)).filter(|value| *value < 16)?)))
}

/// The byte of two digits; `None` where one of them is no digit.
#[inline]
#[must_use]
pub const fn byte(high: u8, low: u8) -> Option<u8> {
    let (high, low) = (value(high), value(low));
    if high < 16 && low < 16 { Some(high << 4 | low) } else { None }
}

/// The value of a digit; 255 of any other byte.
#[inline]
const fn value(digit: u8) -> u8 {
    VALUES[digit as usize]
}

fn digits(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|value| char::from(DIGITS[usize::from(value)]))
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

const VALUES: [u8; 256] = {
    let mut table = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        table[DIGITS[value] as usize] = value as u8;
        table[DIGITS[value].to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_pairs_of_digits_is_refused() {
        for bad in ["a", "0g", "+1", " 1", "é"] {
            assert_eq!((decode(bad.as_bytes()), decode_array::<1>(bad.as_bytes())), (None, None), "{bad}");
        }
        assert_eq!((decode_array::<2>(b"00"), decode_array::<1>(b"0000")), (None, None));
        assert_eq!((number(b""), number(b"+1"), number(&[b'1'; 17])), (None, None, None));
    }

    proptest! {
        #[test]
        fn written_bytes_read_back(bytes: Vec<u8>, id: [u8; 8]) {
            let text = encode(&bytes);
            prop_assert_eq!(&text, &bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")));
            prop_assert_eq!(&text, &Hex(&bytes).to_string());
            prop_assert_eq!(decode(text.to_uppercase().as_bytes()), Some(bytes));
            prop_assert_eq!(decode_array(encode(&id).as_bytes()), Some(id));
            prop_assert_eq!(number(encode(&id).as_bytes()), Some(u64::from_be_bytes(id)));
        }
    }
}
