//! The grammar under CMCD: the part of RFC 8941 dictionaries that it uses, read in place. Decides where a value ends and whether it has
//! its form; refuses nothing as a whole: after a bad value it goes on behind the next comma outside of quotes and brackets.

/// A value in its form. Numbers are kept as text until asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A bare key, `?1` or `?0`.
    Boolean(bool),
    /// An integer, decimal or token.
    Bare(&'a [u8]),
    /// A quoted string, without its quotes, escapes still in.
    Text(&'a [u8]),
    /// An inner list, without its brackets.
    List(&'a [u8]),
}

/// An item of an inner list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    /// Its value.
    pub(crate) value: Value<'a>,
    /// Its first parameter, the object type; empty without one.
    pub(crate) kind: &'a [u8],
}

/// A string as it was sent, `\"` and `\\` still escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The bytes with their escapes: the same for the same text, so good enough to tell viewers apart.
    #[must_use]
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Appends the text without escapes.
    pub fn write_to(self, out: &mut Vec<u8>) {
        let mut bytes = self.0.iter();
        while let Some(byte) = bytes.next() {
            let byte = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
            out.push(*byte);
        }
    }
}

impl<'a> Value<'a> {
    /// A whole number that is not negative; decimals lose their fraction.
    pub(crate) fn number(self) -> Option<u32> {
        self.long().and_then(|value| u32::try_from(value).ok())
    }

    /// As [`Value::number`], for Unix milliseconds.
    pub(crate) fn long(self) -> Option<u64> {
        Some(self.decimal()?.0)
    }

    /// A decimal in thousandths.
    pub(crate) fn thousandths(self) -> Option<u32> {
        let (whole, fraction) = self.decimal()?;
        let mut out = whole.checked_mul(1_000)?;
        for (digit, unit) in fraction.iter().zip([100, 10, 1]) {
            out = out.checked_add(u64::from(digit - b'0') * unit)?;
        }
        u32::try_from(out).ok()
    }

    /// The whole part and the digits behind the point.
    fn decimal(self) -> Option<(u64, &'a [u8])> {
        let Self::Bare(text) = self else {
            return None;
        };
        let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
        let (whole, fraction) = (&text[..point], text.get(point + 1..).unwrap_or_default());
        let digits = !whole.is_empty() && whole.len() <= MAX_DIGITS && fraction.iter().all(u8::is_ascii_digit);
        if !digits {
            return None;
        }
        let mut out = 0_u64;
        for byte in whole {
            let digit = byte.wrapping_sub(b'0');
            out = out * 10 + u64::from((digit < 10).then_some(digit)?);
        }
        Some((out, fraction))
    }

    pub(crate) fn boolean(self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn token(self) -> Option<&'a [u8]> {
        match self {
            Self::Bare(token) if token.first().is_some_and(u8::is_ascii_alphabetic) => Some(token),
            _ => None,
        }
    }

    /// A string of 1 to `most` bytes.
    pub(crate) fn text(self, most: usize) -> Option<Text<'a>> {
        match self {
            Self::Text(text) if !text.is_empty() && text.len() <= most => Some(Text(text)),
            _ => None,
        }
    }
}

/// The keys and values of a dictionary, in order; `None` for a part that has no form.
pub(crate) fn pairs(text: &[u8]) -> Pairs<'_> {
    Pairs { rest: text.trim_ascii() }
}

pub(crate) struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Option<(&'a [u8], Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let key = rest.iter().position(|byte| !is_key(*byte)).unwrap_or(rest.len());
        let (key, after) = rest.split_at(key);
        let read = match after.first() {
            Some(b'=') if !key.is_empty() => value(&after[1..]),
            None | Some(b',') if !key.is_empty() => Some((Value::Boolean(true), after)),
            _ => None,
        };
        let ended = read.filter(|(_, rest)| matches!(rest.first(), None | Some(b',')));
        let (pair, rest) = match ended {
            Some((value, rest)) => (Some((key, value)), rest),
            None => (None, &after[after.iter().position(|byte| *byte == b',').unwrap_or(after.len())..]),
        };
        self.rest = rest.get(1..).unwrap_or_default();
        Some(pair)
    }
}

/// The items of an inner list's inside.
pub(crate) struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    pub(crate) const fn of(inside: &'a [u8]) -> Self {
        Self { rest: inside }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Option<Item<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        self.rest = b"";
        let Some((value, mut rest)) = value(rest) else {
            return Some(None);
        };
        let mut kind: &[u8] = b"";
        while let Some(parameter) = rest.strip_prefix(b";") {
            let end = parameter.iter().position(|byte| matches!(byte, b';' | b' ')).unwrap_or(parameter.len());
            let (name, after) = parameter.split_at(end);
            if kind.is_empty() {
                kind = name;
            }
            rest = after;
        }
        if !rest.is_empty() && rest[0] != b' ' {
            return Some(None);
        }
        self.rest = rest;
        Some(Some(Item { value, kind }))
    }
}

/// One value and what follows it.
fn value(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    match text.first()? {
        b'"' => {
            let end = string_end(text)?;
            Some((Value::Text(&text[1..end]), &text[end + 1..]))
        }
        b'(' => {
            let mut at = 1;
            loop {
                match text.get(at)? {
                    b')' => return Some((Value::List(&text[1..at]), &text[at + 1..])),
                    b'"' => at += string_end(&text[at..])? + 1,
                    b'(' => return None,
                    _ => at += 1,
                }
            }
        }
        b'?' => match text.get(1)? {
            b'1' => Some((Value::Boolean(true), &text[2..])),
            b'0' => Some((Value::Boolean(false), &text[2..])),
            _ => None,
        },
        _ => {
            let end = text.iter().position(|byte| matches!(byte, b',' | b' ' | b';' | b')')).unwrap_or(text.len());
            (end > 0).then(|| (Value::Bare(&text[..end]), &text[end..]))
        }
    }
}

/// The place of the quote that closes the string which `text` begins with.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Appends `encoded` to `out` with `%XX` decoded and `+` as a blank, as browsers write query values; a bad escape stays as it is.
pub fn percent_decode(encoded: &[u8], out: &mut Vec<u8>) {
    let mut rest = encoded;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        out.push(match byte {
            b'+' => b' ',
            b'%' => match after.split_first_chunk::<2>() {
                Some(([high, low], after)) if hex(*high) < 16 && hex(*low) < 16 => {
                    rest = after;
                    hex(*high) * 16 + hex(*low)
                }
                _ => b'%',
            },
            other => *other,
        });
    }
}

/// The value of a hexadecimal digit; 255 of any other byte.
pub(crate) const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => u8::MAX,
    }
}

const fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*')
}

/// Most digits of an integer (RFC 8941 section 3.3.1).
const MAX_DIGITS: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_quotes_or_brackets_parts_nothing() {
        let read: Vec<_> = pairs(b"a=\"x,y\", b=(\"p,q\" 2;v),c,d=?0").flatten().collect();
        assert_eq!(
            read,
            [
                (&b"a"[..], Value::Text(b"x,y")),
                (b"b", Value::List(b"\"p,q\" 2;v")),
                (b"c", Value::Boolean(true)),
                (b"d", Value::Boolean(false)),
            ]
        );
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(Value::Bare(b"1502.681").number(), Some(1_502));
        assert_eq!(Value::Bare(b"0.5").thousandths(), Some(500));
        for bad in [&b""[..], b"-1", b"1e3", b".5", b"1234567890123456", b"1.x"] {
            assert_eq!(Value::Bare(bad).number(), None);
        }
        assert_eq!(Value::Bare(b"99999999999").number(), None);
    }

    #[test]
    fn bad_escapes_stay() {
        let mut out = Vec::new();
        percent_decode(b"%41+%4%zz%", &mut out);
        assert_eq!(out, b"A %4%zz%");
    }
}
