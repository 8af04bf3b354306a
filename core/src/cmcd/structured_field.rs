//! The grammar of CMCD: the subset of RFC 8941 dictionaries that it uses, read in place, percent-encoded or plain by
//! the same code. After a malformed value, reading continues after the next comma.

use memchr::{memchr2, memchr3};

use crate::base::swar::{byte_matches, digit_values, lowercase_mask, non_digits, parse_eight_digits};
use crate::base::{hex, percent};

/// A position in a text; with `ENCODED` its bytes are percent-encoded, as in a query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a, const ENCODED: bool> {
    rest: &'a [u8],
}

/// A value and what follows it.
pub(crate) type Read<'a, T, const ENCODED: bool> = Option<(T, Cursor<'a, ENCODED>)>;

/// A string as it was sent, `\"` and `\\` still escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(&'a [u8]);

/// A short key or token as a number, its first byte lowest; [`u64::MAX`] where it is longer than eight bytes.
pub(crate) type Code = u64;

impl<'a> Text<'a> {
    /// The bytes, still escaped: equal for equal texts, which is enough to identify viewers.
    #[must_use]
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Appends the text, unescaped.
    #[cfg(test)]
    pub(super) fn write_to(self, out: &mut Vec<u8>) {
        let mut bytes = self.0.iter();
        while let Some(byte) = bytes.next() {
            let byte = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
            out.push(*byte);
        }
    }
}

impl<'a, const ENCODED: bool> Cursor<'a, ENCODED> {
    /// The start of `text`, whose trailing blanks are ignored.
    pub(crate) fn of(text: &'a [u8]) -> Self {
        let mut rest = text.trim_ascii_end();
        loop {
            let (length, byte) = match rest {
                [.., b'%', high, low] if ENCODED && let Some(byte) = hex::byte(*high, *low) => (3, byte),
                [.., b'+'] if ENCODED => (1, b' '),
                _ => break,
            };
            if !byte.is_ascii_whitespace() {
                break;
            }
            rest = rest[..rest.len() - length].trim_ascii_end();
        }
        Self { rest }
    }

    pub(crate) const fn is_at_end(self) -> bool {
        self.rest.is_empty()
    }

    /// The decoded byte here, and the position after it.
    #[inline]
    fn next(self) -> Option<(u8, Self)> {
        let (byte, after) = self.rest.split_first()?;
        if !ENCODED || !matches!(byte, b'%' | b'+') {
            return Some((*byte, Self { rest: after }));
        }
        percent::next(self.rest).map(|(byte, rest)| (byte, Self { rest }))
    }

    /// The position after `wanted`, if that is here.
    #[inline]
    pub(crate) fn after(self, wanted: u8) -> Option<Self> {
        if ENCODED && let [b'%', high, low, after @ ..] = self.rest {
            // The form that encoders write; other forms take the slow path.
            if [*high, *low] == [DIGITS[(wanted >> 4) as usize], DIGITS[(wanted & 15) as usize]] {
                return Some(Self { rest: after });
            }
        }
        self.next().filter(|(byte, _)| *byte == wanted).map(|(_, after)| after)
    }

    pub(crate) fn without_blanks(mut self) -> Self {
        while let Some((_, after)) = self.next().filter(|(byte, _)| byte.is_ascii_whitespace()) {
            self = after;
        }
        self
    }

    /// The bytes that are `within`, as a code; `None` when there are none.
    #[inline]
    fn code(mut self, within: impl Fn(u8) -> bool) -> Read<'a, Code, ENCODED> {
        let (mut code, mut length) = (0, 0_usize);
        while let Some((byte, after)) = self.next().filter(|(byte, _)| within(*byte)) {
            if length < 8 {
                code |= u64::from(byte) << (8 * length);
            }
            length += 1;
            self = after;
        }
        (length > 0).then_some((if length > 8 { u64::MAX } else { code }, self))
    }

    /// The key here.
    #[inline]
    pub(crate) fn key(self) -> Read<'a, Code, ENCODED> {
        // The standard's keys are a few lower-case letters: eight bytes at once.
        if let Some(chunk) = self.rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            let ends =
                if ENCODED { byte_matches(word, b'%') } else { byte_matches(word, b'=') | byte_matches(word, b',') };
            let length = ends.trailing_zeros() as usize / 8;
            let key = word & !(u64::MAX << (length * 8 % 64));
            if (1..8).contains(&length) && lowercase_mask(word) | u64::MAX << (length * 8) == u64::MAX {
                let rest = &self.rest[length..];
                // Another escape may stand for one more letter of the key.
                if !ENCODED || matches!(rest, [b'%', b'2', b'C' | b'c', ..] | [b'%', b'3', b'D' | b'd', ..]) {
                    return Some((key, Self { rest }));
                }
            }
        }
        self.code(is_key)
    }

    /// The position after the comma that follows a value, or the end; `None` when something else follows.
    #[inline]
    pub(crate) fn after_separator(self) -> Option<Self> {
        if self.is_at_end() { Some(self) } else { self.after(b',') }
    }

    /// The position after the next comma, whatever contains it: where reading continues after a malformed value.
    pub(crate) fn after_comma(mut self) -> Self {
        while let Some((byte, after)) = self.next() {
            self = after;
            if byte == b',' {
                break;
            }
        }
        self
    }

    /// A non-negative integer; the fraction of a decimal is dropped.
    #[inline]
    pub(crate) fn number(self) -> Read<'a, u32, ENCODED> {
        let (value, after) = self.long()?;
        Some((u32::try_from(value).ok()?, after))
    }

    /// As [`Cursor::number`], for Unix milliseconds.
    #[inline]
    pub(crate) fn long(self) -> Read<'a, u64, ENCODED> {
        let (whole, _, after) = self.decimal()?;
        Some((whole, after))
    }

    /// A decimal, in thousandths.
    pub(crate) fn thousandths(self) -> Read<'a, u32, ENCODED> {
        let (whole, thousandths, after) = self.decimal()?;
        let value = whole.checked_mul(1_000)?.checked_add(u64::from(thousandths))?;
        Some((u32::try_from(value).ok()?, after))
    }

    /// The whole part, the thousandths, and the position after them.
    #[inline]
    fn decimal(self) -> Option<(u64, u32, Self)> {
        if let Some(chunk) = self.rest.first_chunk::<8>() {
            let digits = digit_values(*chunk);
            let length = non_digits(digits).trailing_zeros() as usize / 8;
            let rest = self.rest.get(length..).filter(|_| (1..8).contains(&length));
            if let Some(rest) = rest.filter(|rest| ends_number::<ENCODED>(rest)) {
                return Some((parse_eight_digits(digits << (64 - 8 * length)), 0, Self { rest }));
            }
        }
        self.decimal_by_digit()
    }

    fn decimal_by_digit(self) -> Option<(u64, u32, Self)> {
        let (mut whole, mut length, mut at) = (0_u64, 0, self);
        while let Some((digit, after)) = at.digit() {
            (whole, length, at) = (whole * 10 + u64::from(digit), length + 1, after);
            if length > MAX_DIGITS {
                return None;
            }
        }
        if length == 0 {
            return None;
        }
        let (mut thousandths, mut unit) = (0, 100);
        if let Some(after) = at.after(b'.') {
            at = after;
            while let Some((digit, after)) = at.digit() {
                (thousandths, unit, at) = (thousandths + u32::from(digit) * unit, unit / 10, after);
            }
        }
        Some((whole, thousandths, at))
    }

    #[inline]
    fn digit(self) -> Read<'a, u8, ENCODED> {
        self.next().map(|(byte, after)| (byte.wrapping_sub(b'0'), after)).filter(|(digit, _)| *digit < 10)
    }

    pub(crate) fn boolean(self) -> Read<'a, bool, ENCODED> {
        match self.after(b'?')?.next()? {
            (b'1', after) => Some((true, after)),
            (b'0', after) => Some((false, after)),
            _ => None,
        }
    }

    /// A token and its first letter.
    #[inline]
    pub(crate) fn token(self) -> Read<'a, (Code, u8), ENCODED> {
        let (first, _) = self.next().filter(|(first, _)| first.is_ascii_alphabetic())?;
        let (code, after) = self.code(|byte| !ends_bare(byte))?;
        Some(((code, first), after))
    }

    /// A string of 1 to `max_bytes` bytes, returned as it stands; `Err` where decoding would change it. An encoded text
    /// must not contain a bare backslash.
    #[inline]
    pub(crate) fn text(self, max_bytes: usize) -> Result<Read<'a, Text<'a>, ENCODED>, NotPlain> {
        let Some(inside) = self.after(b'"') else {
            return Ok(None);
        };
        let text = inside.rest;
        let (length, behind) = if ENCODED {
            let Some(length) = memchr3(b'%', b'"', b'+', text) else {
                return Ok(None);
            };
            if text[length] != b'"' && !text[length..].starts_with(b"%22") {
                return Err(NotPlain);
            }
            (length, if text[length] == b'"' { 1 } else { 3 })
        } else {
            let Some(after) = inside.after_quote() else {
                return Ok(None);
            };
            (text.len() - after.rest.len() - 1, 1)
        };
        let is_good = length > 0 && length <= max_bytes;
        Ok(is_good.then(|| (Text(&text[..length]), Self { rest: &text[length + behind..] })))
    }

    /// The position after the closing quote, from inside the string.
    fn after_quote(mut self) -> Option<Self> {
        loop {
            if !ENCODED {
                self.rest = &self.rest[memchr2(b'"', b'\\', self.rest)?..];
            }
            match self.next()? {
                (b'"', after) => return Some(after),
                (b'\\', after) => self = after.next()?.1,
                (_, after) => self = after,
            }
        }
    }

    /// The position after any value; `None` when it is malformed.
    pub(crate) fn after_value(self) -> Option<Self> {
        match self.next()? {
            (b'"', after) => after.after_quote(),
            (b'(', mut after) => loop {
                match after.next()? {
                    (b')', after) => return Some(after),
                    (b'"', inside) => after = inside.after_quote()?,
                    (b'(', _) => return None,
                    (_, next) => after = next,
                }
            },
            (b'?', _) => self.boolean().map(|(_, after)| after),
            _ => self.code(|byte| !ends_bare(byte)).map(|(_, after)| after),
        }
    }

    /// An item of an inner list: its number, if it is one, and its first parameter, the object type.
    #[inline]
    pub(crate) fn item(self) -> Read<'a, (Option<u32>, Option<Code>), ENCODED> {
        let (value, mut after) = match self.number() {
            Some((value, after)) => (Some(value), after),
            None => (None, self.after_value()?),
        };
        let mut kind = None;
        while let Some(parameter) = after.after(b';') {
            let (name, behind) = parameter.code(|byte| !matches!(byte, b';' | b' ' | b')' | b'"' | b'('))?;
            kind = kind.or(Some(name));
            after = behind;
        }
        let ends = after.next().is_some_and(|(byte, _)| matches!(byte, b' ' | b')'));
        ends.then_some(((value, kind), after))
    }
}

/// Whether neither a digit nor a point can follow, without decoding.
#[inline]
fn ends_number<const ENCODED: bool>(rest: &[u8]) -> bool {
    match rest {
        [b'%', kind, ..] if ENCODED => {
            *kind == b'2' && !rest.starts_with(b"%2E") && !rest.starts_with(b"%2e") || rest.starts_with(b"%3B")
        }
        [b'.' | b'%', ..] => false,
        _ => true,
    }
}

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// A string contains escapes and must be decoded first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotPlain;

/// The code of a key or token.
pub(crate) const fn code(name: &[u8]) -> Code {
    let (mut code, mut at) = (0, 0);
    while at < name.len() {
        code |= (name[at] as u64) << (8 * at);
        at += 1;
    }
    code
}

const fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*')
}

const fn ends_bare(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b';' | b')')
}

/// Most digits of an integer (RFC 8941 section 3.3.1).
const MAX_DIGITS: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        let number = |text| Cursor::<false>::of(text).number().map(|(value, _)| value);
        assert_eq!((number(b"1502.681"), number(b"7;v")), (Some(1_502), Some(7)));
        let thousandths = |text| Cursor::<true>::of(text).thousandths().map(|(value, _)| value);
        assert_eq!((thousandths(b"0.5"), thousandths(b"1%2E2509")), (Some(500), Some(1_250)));
        for bad in [&b""[..], b"-1", b".5", b"1234567890123456", b"99999999999"] {
            assert_eq!(number(bad), None);
        }
    }

    #[test]
    fn blanks_at_the_end_do_not_count() {
        for text in [&b"a"[..], b"a ", b"a+%20", b"a%09 +"] {
            assert_eq!(Cursor::<true>::of(text).rest, b"a");
        }
        assert_eq!(Cursor::<true>::of(b"a%2B%%2x%").rest, b"a%2B%%2x%");
    }
}
