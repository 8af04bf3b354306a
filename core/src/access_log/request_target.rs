//! The requested path, its query, and when the line was logged.

use memchr::memchr;

use super::field::Field;
use super::line::Line;
use super::timestamp::{common, iso, seconds};
use crate::model::Timestamp;

/// The requested path and query; `None` when the path is not UTF-8.
pub(crate) fn target<'a>(line: &Line<'a>) -> Option<(&'a str, &'a [u8])> {
    let path = line.raw(Field::Path);
    let path = if path.is_empty() {
        line.raw(Field::RequestLine).split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    } else {
        path
    };
    let path = std::str::from_utf8(path).ok()?;
    let query = line.raw(Field::Query);
    if !query.is_empty() {
        return Some((path, query));
    }
    Some((path, memchr(b'?', path.as_bytes()).map_or(b"", |at| &path.as_bytes()[at + 1..])))
}

/// The value of a query argument, still percent-encoded; empty where absent.
pub(crate) fn argument<'a>(query: &'a [u8], name: &str) -> &'a [u8] {
    let mut rest = query;
    loop {
        let (pair, others) = rest.split_at(memchr(b'&', rest).unwrap_or(rest.len()));
        if let Some(value) = pair.strip_prefix(name.as_bytes()).and_then(|value| value.strip_prefix(b"=")) {
            return value;
        }
        let Some((_, others)) = others.split_first() else {
            return b"";
        };
        rest = others;
    }
}

/// When a line was logged; `None` without a readable time in any of nginx's three forms.
pub(crate) fn instant(line: &Line<'_>) -> Option<Timestamp> {
    let since = seconds(line.raw(Field::Seconds))
        .or_else(|| iso(line.raw(Field::Iso)))
        .or_else(|| common(line.raw(Field::Local)))?;
    Some(Timestamp::from_nanos(since.as_secs().saturating_mul(1_000_000_000) + u64::from(since.subsec_nanos())))
}
