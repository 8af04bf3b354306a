//! The fields of one access-log line.

use super::field::Field;
use crate::model::Timestamp;

/// The fields of one line as they stand in it, still escaped; empty where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line<'a> {
    fields: [&'a [u8]; Field::COUNT],
}

impl<'a> Line<'a> {
    /// A field's text as it stands in the line; empty where absent, which nginx writes as `-`.
    #[must_use]
    pub fn raw(&self, field: Field) -> &'a [u8] {
        let text = self.fields[field as usize];
        if text == b"-" { b"" } else { text }
    }

    #[inline]
    pub(crate) fn put(&mut self, field: Option<Field>, text: &'a [u8]) {
        if let Some(field) = field {
            self.fields[field as usize] = text;
        }
    }
}

/// A parsed line.
#[derive(Clone, Debug)]
pub struct ParsedLine<'a> {
    /// When it was logged.
    pub logged: Timestamp,
    pub(super) line: Line<'a>,
}

impl ParsedLine<'_> {
    /// What the line lacks for full figures, each with the nginx variable that would contain it.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let has = |field| !self.line.raw(field).is_empty();
        [
            (has(Field::Path) || has(Field::RequestLine) || has(Field::Body), "path ($uri)"),
            (has(Field::Status) || has(Field::Body), "status ($status)"),
            (has(Field::Bytes) || has(Field::Body), "bytes ($body_bytes_sent)"),
            (has(Field::Address) || has(Field::Body), "viewer's address ($remote_addr), for players without CMCD"),
        ]
        .into_iter()
        .filter_map(|(has, what)| (!has).then_some(what))
        .collect()
    }
}
