//! How a log line is split into fields: as a JSON object, or by any nginx `log_format` given as text. The format is
//! compiled once. A line of another form is refused; nothing is guessed.

use memchr::{memchr, memchr2};

use super::field::Field;
use super::layout_cache::{Layout, Layouts};
use super::line::Line;
use crate::base::hex;

/// The format of a log's lines.
#[derive(Clone, Debug)]
pub struct LogFormat {
    names: Vec<(Box<[u8]>, Field)>,
    /// Literals, each with the variable before it; empty for JSON.
    parts: Vec<(Box<[u8]>, Option<Field>)>,
}

/// Why a format was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No variable contains the request's time.
    #[error("reading log_format: none of $msec, $time_iso8601 and $time_local is in it")]
    Time,
    /// No variable contains the request's path.
    #[error("reading log_format: none of $uri, $request_uri and $request is in it")]
    Path,
    /// Two variables with nothing between them: their values could not be separated.
    #[error("reading log_format: no text separates ${0} from the variable after it")]
    Joined(String),
    /// A JSON key is mapped to an unknown field.
    #[error("reading fields: \"{0}\" is not a known field; use the name of an nginx variable such as request_time")]
    Field(String),
    /// More than [`MAX_PARTS`] parts.
    #[error("reading log_format: {0} parts exceed the maximum of {MAX_PARTS}")]
    Long(usize),
}

impl LogFormat {
    /// Lines that are JSON objects (`escape=json`). `names` maps further keys of the log to nginx variables. Nested
    /// objects are skipped.
    ///
    /// # Errors
    /// [`FormatError::Field`].
    pub fn json<'n>(names: impl IntoIterator<Item = (&'n str, &'n str)>) -> Result<Self, FormatError> {
        let field = |variable: &str| Field::named(variable).ok_or_else(|| FormatError::Field(variable.to_owned()));
        let names = names.into_iter().map(|(name, variable)| Ok((name.as_bytes().into(), field(variable)?)));
        Ok(Self { names: names.collect::<Result<_, FormatError>>()?, parts: Vec::new() })
    }

    /// Lines of an nginx `log_format`, given as its text: literals and `$variables`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn text(format: &str) -> Result<Self, FormatError> {
        Self::text_naming(format, [])
    }

    /// As [`LogFormat::text`]; `names` maps further variables of the format to nginx variables.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn text_naming<'n>(
        format: &str,
        names: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Result<Self, FormatError> {
        let names = Self::json(names)?.names;
        let mut parts: Vec<(Box<[u8]>, Option<Field>)> = Vec::new();
        let mut pieces = format.split('$');
        parts.push((pieces.next().unwrap_or_default().as_bytes().into(), None));
        for piece in pieces {
            let braced = piece.strip_prefix('{').and_then(|piece| piece.split_once('}'));
            let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(piece.len());
            let (name, literal) = braced.unwrap_or_else(|| piece.split_at(end));
            if parts.len() > 1 && parts.last().is_some_and(|(literal, _)| literal.is_empty()) {
                return Err(FormatError::Joined(name.to_owned()));
            }
            let custom = names.iter().find(|(custom, _)| **custom == *name.as_bytes()).map(|(_, field)| *field);
            // The short keys of `log_format liveqos` are JSON keys, not variables.
            let field = custom.or_else(|| Field::named(name).filter(|_| name.len() > 2));
            parts.push((literal.as_bytes().into(), field));
        }
        let has = |wanted: &[Field]| parts.iter().any(|(_, field)| field.is_some_and(|field| wanted.contains(&field)));
        if parts.len() > MAX_PARTS {
            return Err(FormatError::Long(parts.len()));
        }
        if !has(&[Field::Seconds, Field::Iso, Field::Local]) {
            return Err(FormatError::Time);
        }
        if !has(&[Field::Path, Field::RequestLine]) {
            return Err(FormatError::Path);
        }
        Ok(Self { names: Vec::new(), parts })
    }

    /// The fields of a line; `None` when it has another format.
    #[must_use]
    pub fn split<'a>(&self, line: &'a [u8]) -> Option<Line<'a>> {
        self.split_learning(line, &mut Layout::default())
    }

    /// As [`LogFormat::split`], faster for lines whose layout was seen before.
    pub(crate) fn split_known<'a>(&self, line: &'a [u8], layouts: &mut Layouts) -> Option<Line<'a>> {
        if !self.parts.is_empty() {
            return self.split(line);
        }
        layouts.split(line).or_else(|| layouts.learn(|layout| self.split_learning(line, layout)))
    }

    fn split_learning<'a>(&self, line: &'a [u8], layout: &mut Layout) -> Option<Line<'a>> {
        let mut out = Line::default();
        if self.parts.is_empty() {
            self.split_json(line, &mut out, layout)?;
        } else {
            self.split_text(line, &mut out)?;
        }
        Some(out)
    }

    fn split_text<'a>(&self, line: &'a [u8], out: &mut Line<'a>) -> Option<()> {
        let mut rest = line;
        for (index, (literal, field)) in self.parts.iter().enumerate() {
            let end = match index {
                0 => Some(0),
                _ if literal.is_empty() => Some(rest.len()),
                _ => position_of(rest, literal),
            }?;
            out.put(*field, &rest[..end]);
            rest = rest[end..].strip_prefix(&**literal)?;
        }
        rest.is_empty().then_some(())
    }

    fn split_json<'a>(&self, line: &'a [u8], out: &mut Line<'a>, layout: &mut Layout) -> Option<()> {
        let line = line.trim_ascii();
        let mut rest = line.strip_prefix(b"{")?.strip_suffix(b"}")?;
        // Offset within `line`, whose closing brace is already stripped from `rest`.
        let place = |rest: &[u8]| line.len() - 1 - rest.len();
        let (mut covered, mut is_flat) = (0, true);
        loop {
            rest = rest.trim_ascii_start();
            if rest.is_empty() {
                layout.end(&line[covered..]);
                if !is_flat {
                    layout.forget();
                }
                return Some(());
            }
            let (key, after) = json_string(rest)?;
            rest = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
            let is_quoted = rest.first() == Some(&b'"');
            let begin = place(rest) + usize::from(is_quoted);
            let (value, after) = match rest.first() {
                Some(b'"') => json_string(rest)?,
                Some(b'{') => {
                    is_flat = false;
                    (&b""[..], &rest[object_end(rest)?..])
                }
                // nginx writes an empty variable outside of quotes as nothing.
                _ => rest.split_at(memchr(b',', rest).unwrap_or(rest.len())),
            };
            let field = self.key(key);
            layout.push(&line[covered..begin], is_quoted, field);
            covered = begin + value.len();
            out.put(field, value.trim_ascii());
            rest = after.trim_ascii_start();
            rest = match rest.first() {
                Some(b',') => &rest[1..],
                None => rest,
                Some(_) => return None,
            };
        }
    }

    fn key(&self, key: &[u8]) -> Option<Field> {
        let custom = self.names.iter().find(|(name, _)| **name == *key).map(|(_, field)| *field);
        custom.or_else(|| Field::of(key))
    }
}

/// Appends `text` to `out` with nginx's escapes resolved: `\xHH` and those of JSON; surrogates become `?`.
pub(super) fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let plain = memchr(b'\\', rest).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        let Some((_, after)) = rest[plain..].split_first() else {
            return;
        };
        rest = after;
        let (hex_code, length) = match after.first() {
            Some(b'x') => (hex_code(after, 2), 3),
            Some(b'u') => (hex_code(after, 4), 5),
            Some(b'n') => (Some(10), 1),
            Some(b't') => (Some(9), 1),
            Some(b'r') => (Some(13), 1),
            Some(b'b') => (Some(8), 1),
            Some(b'f') => (Some(12), 1),
            Some(other) => (Some(u32::from(*other)), 1),
            None => (None, 0),
        };
        let Some(hex_code) = hex_code else {
            out.push(b'\\');
            continue;
        };
        if length == 5 {
            out.extend_from_slice(char::from_u32(hex_code).unwrap_or('?').encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.push(hex_code as u8);
        }
        rest = &after[length..];
    }
}

fn hex_code(text: &[u8], digits: usize) -> Option<u32> {
    u32::try_from(hex::number(text.get(1..=digits)?)?).ok()
}

/// The content of the JSON string at the head of `text`, still escaped, and what follows.
fn json_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some((&text[..at], &text[at + 1..]));
        }
        at += 2;
    }
}

/// The end of the object at the head of `text`.
fn object_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_u32, 0);
    loop {
        match text.get(at)? {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' => depth -= 1,
            b'"' => at = text.len() - json_string(&text[at..])?.1.len() - 1,
            _ => {}
        }
        at += 1;
    }
}

fn position_of(text: &[u8], literal: &[u8]) -> Option<usize> {
    let (first, _) = literal.split_first()?;
    let mut from = 0;
    loop {
        let at = from + memchr(*first, text.get(from..)?)?;
        if text[at..].starts_with(literal) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Most variables of a format.
pub(super) const MAX_PARTS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMBINED: &str = r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "$http_cmcd_session" $request_time"#;

    #[test]
    fn the_combined_format_is_split() {
        let format = LogFormat::text(COMBINED).expect("good");
        let line = br#"10.0.0.1 - - [23/Nov/2026:13:20:20 +0000] "GET /hls/c1/67.ts?CMCD=bl%3D1 HTTP/1.1" 200 99 "-" "A \x22B\x22" "sid=\x22s\x22" 0.010"#;
        let line = format.split(line).expect("it fits");
        assert_eq!(line.raw(Field::RequestLine), b"GET /hls/c1/67.ts?CMCD=bl%3D1 HTTP/1.1");
        assert_eq!((line.raw(Field::Status), line.raw(Field::Duration)), (&b"200"[..], &b"0.010"[..]));
        let mut session = Vec::new();
        unescape(line.raw(Field::CmcdSession), &mut session);
        assert_eq!(session, b"sid=\"s\"");
        assert!(format.split(b"10.0.0.1 - - nonsense").is_none());
    }

    #[test]
    fn json_is_split_with_custom_names() {
        let format = LogFormat::json([("when", "msec")]).expect("good");
        let line =
            format.split(br#"{"when":1.5,"u":"/a","rt":,"x":{"y":"}"},"s":"sid=\"q\"","cwnd":10}"#).expect("it fits");
        assert_eq!(
            (line.raw(Field::Seconds), line.raw(Field::Path), line.raw(Field::Duration)),
            (&b"1.5"[..], &b"/a"[..], &b""[..])
        );
        assert_eq!(line.raw(Field::CmcdSession), br#"sid=\"q\""#);
        for bad in [&b"{"[..], b"", b"[1]", br#"{"a"}"#, br#"{"a":"b}"#, br#"{"a":"b" 1}"#] {
            assert!(format.split(bad).is_none(), "{bad:?}");
        }
        assert!(LogFormat::json([("a", "nonsense")]).is_err());
    }

    #[test]
    fn formats_that_cannot_work_are_refused() {
        assert_eq!(LogFormat::text("$uri").err(), Some(FormatError::Time));
        assert_eq!(LogFormat::text("$msec $status").err(), Some(FormatError::Path));
        assert_eq!(LogFormat::text("$msec$uri").err(), Some(FormatError::Joined("uri".to_owned())));
    }

    proptest! {
        #[test]
        fn cached_layouts_split_as_uncached_ones(lines in proptest::collection::vec("(\\{\"t\":1|\\{\"t\": \"1\")?(,? ?\"(u|q|s|x)\":(\"[a-z\\\\\",}]{0,4}\"|[0-9]{0,2}|\\{\"y\":1\\})){0,4}\\}?", 1..8)) {
            let format = LogFormat::json([]).expect("good");
            let mut layouts = Layouts::default();
            for line in lines.iter().chain(&lines) {
                let (known, split) = (format.split_known(line.as_bytes(), &mut layouts), format.split(line.as_bytes()));
                prop_assert_eq!(known, split, "{}", line);
            }
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200), text in "[{}\":,\\\\a-z0-9 ]{0,60}") {
            for format in [LogFormat::text(COMBINED).expect("good"), LogFormat::json([]).expect("good")] {
                for line in [&line[..], text.as_bytes()] {
                    drop(format.split(line));
                    let mut out = Vec::new();
                    unescape(line, &mut out);
                    prop_assert!(out.len() <= line.len());
                }
            }
        }
    }
}
