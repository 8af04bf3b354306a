//! A cache of the layouts of a log's JSON lines: a log has few of them, compiled into its writer. Splitting by a cached
//! layout gives exactly what [`LogFormat::split`](super::format::LogFormat::split) gives: a line that differs in one
//! byte outside of its values is not taken.

use memchr::memchr2;

use super::field::Field;
use super::line::Line;
use crate::base::swar::byte_matches;

/// The last few layouts seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layouts {
    known: [Layout; MAX_LAYOUTS],
    newest: usize,
    oldest: usize,
    /// The layout being learnt.
    next: Layout,
}

/// The literals between the values of a line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    literals: Vec<u8>,
    values: Vec<Value>,
    /// Where the literal after the last value begins.
    end: usize,
}

/// A value and the literal before it.
#[derive(Clone, Copy, Debug)]
struct Value {
    /// The first eight bytes of the literal, and the mask of those that it has.
    word: u64,
    mask: u64,
    literal_end: usize,
    is_quoted: bool,
    field: Option<Field>,
}

impl Layouts {
    /// The fields of a line whose layout is cached.
    #[inline]
    pub(crate) fn split<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        for step in 0..MAX_LAYOUTS {
            let place = (self.newest + step) % MAX_LAYOUTS;
            if let Some(split) = self.known[place].split(line) {
                self.newest = place;
                return Some(split);
            }
        }
        None
    }

    /// Learns the layout of a line while `split` splits it; it replaces the oldest one. Allocations are reused.
    pub(crate) fn learn<'a>(&mut self, split: impl FnOnce(&mut Layout) -> Option<Line<'a>>) -> Option<Line<'a>> {
        self.next.forget();
        let line = split(&mut self.next)?;
        if !self.next.values.is_empty() {
            std::mem::swap(&mut self.known[self.oldest], &mut self.next);
            self.newest = self.oldest;
            self.oldest = (self.oldest + 1) % MAX_LAYOUTS;
        }
        Some(line)
    }
}

impl Layout {
    /// Records a value: the literal before it, and its kind.
    pub(crate) fn push(&mut self, before: &[u8], is_quoted: bool, field: Option<Field>) {
        if self.values.len() > MAX_VALUES || self.literals.len() > MAX_LITERALS {
            return;
        }
        self.literals.extend_from_slice(before);
        let mut chunk = [0; 8];
        let length = before.len().min(8);
        chunk[..length].copy_from_slice(&before[..length]);
        let mask = if length == 8 { u64::MAX } else { (1 << (8 * length)) - 1 };
        let literal_end = self.literals.len();
        self.values.push(Value { word: u64::from_le_bytes(chunk), mask, literal_end, is_quoted, field });
        self.end = self.literals.len();
    }

    /// Records the literal after the last value; a layout that is too long is dropped.
    pub(crate) fn end(&mut self, behind: &[u8]) {
        self.literals.extend_from_slice(behind);
        if self.values.len() > MAX_VALUES || self.literals.len() > MAX_LITERALS {
            self.forget();
        }
    }

    pub(crate) fn forget(&mut self) {
        self.literals.clear();
        self.values.clear();
    }

    fn split<'a>(&self, line: &'a [u8]) -> Option<Line<'a>> {
        if self.values.is_empty() {
            return None;
        }
        let mut out = Line::default();
        let (mut rest, mut from) = (line, 0);
        for value in &self.values {
            let length = value.literal_end - from;
            let begins = match rest.first_chunk::<8>() {
                Some(chunk) if length <= 8 => u64::from_le_bytes(*chunk) & value.mask == value.word,
                _ => rest.starts_with(&self.literals[from..value.literal_end]),
            };
            if !begins {
                return None;
            }
            rest = &rest[length..];
            from = value.literal_end;
            let end = if value.is_quoted { quoted_end(rest)? } else { bare_end(rest)? };
            let (text, behind) = rest.split_at(end);
            out.put(value.field, text.trim_ascii());
            rest = behind;
        }
        (rest == &self.literals[self.end..]).then_some(out)
    }
}

/// The end of the string whose inside `text` begins with.
#[inline]
fn quoted_end(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'"') {
        return Some(0);
    }
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// The end of a value without quotes; `None` where `text` may be something else.
#[inline]
fn bare_end(text: &[u8]) -> Option<usize> {
    let first = text.first()?;
    if matches!(first, b'"' | b'{') || first.is_ascii_whitespace() {
        return None;
    }
    let mut at = 0;
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let ends = byte_matches(word, b',') | byte_matches(word, b'}');
        if ends != 0 {
            return Some(at + ends.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    text[at..].iter().position(|byte| matches!(byte, b',' | b'}')).map(|end| at + end)
}

/// Requests, event posts, and two more.
const MAX_LAYOUTS: usize = 4;
const MAX_VALUES: usize = 64;
const MAX_LITERALS: usize = 2_048;
