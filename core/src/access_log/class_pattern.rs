//! The class's name by a configured path pattern: `/live/{class}/*.m4s`, `/hls/{class}-*.ts`, `/vod/*/{class}/...`.
//! Matching is one pass without backtracking, so every line costs the same. A pattern that could match in two ways is
//! refused.

use std::fmt;

use super::class_path::{ClassPath, kind_of};

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassPattern {
    segments: Vec<Segment>,
    /// Whether anything may follow (the pattern ends in `...`).
    open: bool,
    /// The application that precedes the class's name in the class's key; empty without one.
    pub(crate) app: String,
}

/// The part between two slashes: literal texts with wildcards between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    texts: Vec<String>,
    wilds: Vec<Wild>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wild {
    /// `{class}`
    Class,
    /// `*`
    Any,
}

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// It does not begin with a slash.
    Slash,
    /// No `{class}`, or more than one.
    Class,
    /// Braces around another name than `class`.
    Brace,
    /// More than two wildcards between two slashes, or two without text between them.
    Wild,
}

impl ClassPattern {
    /// Parses a pattern; `app` is the application of all its classes, empty without one.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn new(pattern: &str, app: &str) -> Result<Self, PatternError> {
        let parts = pattern.strip_prefix('/').ok_or(PatternError::Slash)?;
        let (parts, open) = match parts.strip_suffix("/...") {
            Some(parts) => (parts, true),
            None => (parts, false),
        };
        let segments = parts.split('/').map(Segment::new).collect::<Result<Vec<_>, _>>()?;
        let classes = segments.iter().flat_map(|segment| &segment.wilds).filter(|wild| **wild == Wild::Class).count();
        if classes != 1 {
            return Err(PatternError::Class);
        }
        Ok(Self { segments, open, app: app.to_owned() })
    }

    /// What `path` names by this pattern; `None` where it does not match. A matching path with an unknown extension
    /// counts as media.
    #[must_use]
    pub fn read<'a>(&self, path: &'a str) -> Option<ClassPath<'a>> {
        let path = path.split('?').next()?;
        let mut parts = path.strip_prefix('/')?.split('/');
        let mut name = None;
        for segment in &self.segments {
            name = Some(segment.read(parts.next()?)?).filter(|name| !name.is_empty()).or(name);
        }
        if parts.next().is_some() != self.open {
            return None;
        }
        let ending = path.rsplit_once('/')?.1.rsplit_once('.').map_or("", |(_, ending)| ending);
        let (protocol, is_manifest) = kind_of(ending).unwrap_or((None, false));
        Some(ClassPath { app: "", name: name?, protocol, is_manifest })
    }
}

impl Segment {
    fn new(text: &str) -> Result<Self, PatternError> {
        let (mut texts, mut wilds) = (vec![String::new()], Vec::new());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (wild, length) = match c {
                '*' => (Some(Wild::Any), 1),
                '{' if rest.starts_with(CLASS) => (Some(Wild::Class), CLASS.len()),
                '{' | '}' => return Err(PatternError::Brace),
                c => (None, c.len_utf8()),
            };
            match wild {
                Some(wild) => {
                    wilds.push(wild);
                    texts.push(String::new());
                }
                None => {
                    if let Some(text) = texts.last_mut() {
                        text.push(c);
                    }
                }
            }
            rest = &rest[length..];
        }
        let touching = wilds.len() == MAX_WILDS && texts[1].is_empty();
        if wilds.len() > MAX_WILDS || touching { Err(PatternError::Wild) } else { Ok(Self { texts, wilds }) }
    }

    /// The class's name in a `part` that matches, empty where this segment has no `{class}`. Of two wildcards the first
    /// is greedy.
    fn read<'a>(&self, part: &'a str) -> Option<&'a str> {
        let (first, last) = (self.texts.first()?, self.texts.last()?);
        if self.wilds.is_empty() {
            return (part == first).then_some("");
        }
        let inner = part.strip_prefix(first.as_str())?.strip_suffix(last.as_str())?;
        let taken = match self.wilds.len() {
            1 => [inner, ""],
            _ => inner.rsplit_once(self.texts[1].as_str()).map(|(one, two)| [one, two])?,
        };
        match self.wilds.iter().position(|wild| *wild == Wild::Class) {
            None => Some(""),
            Some(index) => Some(taken[index]).filter(|class| !class.is_empty()),
        }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slash => "a pattern must begin with /, as paths do",
            Self::Class => "a pattern must contain {class} exactly once",
            Self::Brace => "the only name allowed in braces is {class}",
            Self::Wild => "between two slashes at most two of {class} and * are allowed, with text between them",
        })
    }
}

impl std::error::Error for PatternError {}

const CLASS: &str = "{class}";
const MAX_WILDS: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Protocol;

    fn class<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
        ClassPattern::new(pattern, "").expect("good").read(path).map(|path| path.name)
    }

    #[test]
    fn paths_match_or_not() {
        for (pattern, path, name) in [
            ("/live/{class}/...", "/live/c1/v1/7.ts?x=/", Some("c1")),
            ("/live/{class}/...", "/live/c1", None),
            ("/live/{class}/...", "/other/c1/7.ts", None),
            ("/live/{class}/...", "/live//7.ts", None),
            ("/hls/{class}-*.ts", "/hls/math-101-67.ts", Some("math-101")),
            ("/hls/{class}-*.ts", "/hls/math.ts", None),
            ("/hls/{class}-*.ts", "/hls/-67.ts", None),
            ("/*/*/room_{class}.flv", "/a/b/room_9.flv", Some("9")),
            ("/*/*/room_{class}.flv", "/a/b/c/room_9.flv", None),
            ("/{class}", "/c1", Some("c1")),
            ("/{class}", "c1", None),
        ] {
            assert_eq!(class(pattern, path), name, "{pattern} {path}");
        }
        let read = ClassPattern::new("/l/{class}/*", "").expect("good");
        let kind = |path| read.read(path).map(|path| (path.protocol, path.is_manifest));
        assert_eq!(kind("/l/c/x.m3u8"), Some((Some(Protocol::Hls), true)));
        assert_eq!(kind("/l/c/part-7"), Some((None, false)), "the pattern makes it media");
    }

    #[test]
    fn ambiguous_patterns_are_refused() {
        for (pattern, error) in [
            ("live/{class}", PatternError::Slash),
            ("/live/*", PatternError::Class),
            ("/{class}/{class}", PatternError::Class),
            ("/{app}/{class}", PatternError::Brace),
            ("/{class}*", PatternError::Wild),
            ("/{class}-*-*", PatternError::Wild),
        ] {
            assert_eq!(ClassPattern::new(pattern, ""), Err(error), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(pattern in "[/a{}*.é-]{0,20}|/\\PC{0,20}", path in "[/a.é?-]{0,30}|\\PC{0,30}") {
            if let Ok(pattern) = ClassPattern::new(&pattern, "") {
                prop_assert!(pattern.read(&path).is_none_or(|read| path.contains(read.name)));
            }
        }

        #[test]
        fn a_generated_name_is_read_back(name in "[a-z0-9_-]{1,20}", number in 0_u32..1_000_000) {
            let path = format!("/live/{name}/seg-{number}.m4s");
            prop_assert_eq!(class("/live/{class}/*.m4s", &path), Some(name.as_str()));
        }
    }
}
