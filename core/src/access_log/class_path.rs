//! The class and the kind of media that an HTTP path names, by the naming habits of HLS, DASH and HTTP-FLV packagers. A
//! path that is not media (a page, an icon, a report) belongs to no class.

use memchr::memchr;

use crate::model::Protocol;

/// What an HTTP path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassPath<'a> {
    /// The application: the folder above the class's name; empty at the root.
    pub app: &'a str,
    /// The class's name.
    pub name: &'a str,
    /// How the media is delivered, where the file's extension implies it.
    pub protocol: Option<Protocol>,
    /// Whether it is a manifest or playlist.
    pub is_manifest: bool,
}

impl<'a> ClassPath<'a> {
    /// Reads a path: `/hls/c1/67.ts`, `/hls/c1-67.ts`, `/hls/c1.m3u8`, `/hls/c1/index.m3u8`,
    /// `/dash/c1/chunk-stream0-00034.m4s` and `/live/c1.flv` are all of class `c1`. `None` when it is not media.
    #[must_use]
    pub fn of(path: &'a str) -> Option<Self> {
        let path = memchr(b'?', path.as_bytes()).map_or(path, |end| &path[..end]);
        let (folder, file) = split_at_last(path, b'/')?;
        let (stem, ending) = split_at_last(file, b'.')?;
        let (protocol, is_manifest) = kind_of(ending)?;
        let stem = if is_manifest || ending == "flv" { stem } else { without_number(stem) };
        let is_part =
            |stem: &str| stem.starts_with(GENERIC_INITIALS) && GENERIC_STEMS.iter().any(|part| stem.starts_with(part));
        let is_class_name = !stem.is_empty() && !is_part(stem);
        let (folder, name) = if is_class_name { (folder, stem) } else { split_at_last(folder, b'/')? };
        let app = split_at_last(folder, b'/').map_or(folder, |(_, app)| app);
        (!name.is_empty()).then_some(Self { app, name, protocol, is_manifest })
    }
}

/// `text` before and after the last `byte`, which must be ASCII.
fn split_at_last(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().rposition(|other| other == byte)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The protocol that a file extension implies, and whether it is a manifest; `None` when it is not media.
pub(crate) fn kind_of(ending: &str) -> Option<(Option<Protocol>, bool)> {
    Some(match ending {
        "m3u8" => (Some(Protocol::Hls), true),
        "mpd" => (Some(Protocol::Dash), true),
        "ts" | "aac" => (Some(Protocol::Hls), false),
        "flv" => (Some(Protocol::HttpFlv), false),
        "m4s" | "mp4" | "m4v" | "m4a" | "cmfv" | "cmfa" => (None, false),
        _ => return None,
    })
}

/// A segment's stem without its number: `c1` of `c1-67`.
fn without_number(stem: &str) -> &str {
    let end_of_non =
        |text: &str, within: fn(u8) -> bool| text.bytes().rposition(|byte| !within(byte)).map_or(0, |at| at + 1);
    let digits = end_of_non(stem, |byte| byte.is_ascii_digit());
    if digits == stem.len() {
        return stem;
    }
    &stem[..end_of_non(&stem[..digits], |byte| matches!(byte, b'-' | b'_' | b'.'))]
}

/// Stems that name a part of a class rather than the class: the folder is the class then.
const GENERIC_STEMS: [&str; 10] =
    ["index", "playlist", "master", "manifest", "chunk", "init", "seg", "media", "stream", "frag"];
/// Their first letters, for a fast check.
const GENERIC_INITIALS: [char; 6] = ['i', 'p', 'm', 'c', 's', 'f'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_common_packagers_are_recognised() {
        for (path, app, name, is_manifest) in [
            ("/hls/class101/67.ts", "hls", "class101", false),
            ("/hls/class101-67.ts", "hls", "class101", false),
            ("/hls/class101.m3u8?CMCD=x", "hls", "class101", true),
            ("/hls/class101/index.m3u8", "hls", "class101", true),
            ("/dash/class101/chunk-stream0-00034.m4s", "dash", "class101", false),
            ("/dash/class101/init-stream0.m4s", "dash", "class101", false),
            ("/a/b/live/math.flv", "live", "math", false),
            ("/math/seg_1.m4s", "", "math", false),
        ] {
            let read = ClassPath::of(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((read.app, read.name, read.is_manifest), (app, name, is_manifest), "{path}");
        }
        for path in ["/", "", "/favicon.ico", "/cmcd/hls", "/67.ts", "a.ts", "/api/x.json"] {
            assert_eq!(ClassPath::of(path), None, "{path}");
        }
    }
}
