//! Which class an HTTP path belongs to, and what is asked for. Decides by the habits of HLS, DASH and HTTP-FLV
//! packagers; refuses a path that is not media, so that pages, icons and reports are no class.

use memchr::memchr;

use crate::model::Protocol;

/// What a path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassPath<'a> {
    /// The application: the folder above the class's name; empty at the root.
    pub app: &'a str,
    /// The class's name.
    pub name: &'a str,
    /// How it is delivered, where the ending says so.
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
        let (folder, file) = parted(path, b'/')?;
        let (stem, ending) = parted(file, b'.')?;
        let (protocol, is_manifest) = kind_of(ending)?;
        let stem = if is_manifest || ending == "flv" { stem } else { without_number(stem) };
        let is_part = |stem: &str| stem.starts_with(PARTS_BEGIN) && PARTS.iter().any(|part| stem.starts_with(part));
        let own = !stem.is_empty() && !is_part(stem);
        let (folder, name) = if own { (folder, stem) } else { parted(folder, b'/')? };
        let app = parted(folder, b'/').map_or(folder, |(_, app)| app);
        (!name.is_empty()).then_some(Self { app, name, protocol, is_manifest })
    }
}

/// What stands before and behind the last `byte` of `text`, an ASCII character.
fn parted(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().rposition(|other| other == byte)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Protocol and whether it is a manifest, by a file's ending; `None` when it is not media.
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

/// A segment's name without its number.
fn without_number(stem: &str) -> &str {
    let until =
        |text: &str, within: fn(u8) -> bool| text.bytes().rposition(|byte| !within(byte)).map_or(0, |at| at + 1);
    let digits = until(stem, |byte| byte.is_ascii_digit());
    if digits == stem.len() {
        return stem;
    }
    &stem[..until(&stem[..digits], |byte| matches!(byte, b'-' | b'_' | b'.'))]
}

/// Beginnings of names that are parts of a class, not the class.
const PARTS: [&str; 10] =
    ["index", "playlist", "master", "manifest", "chunk", "init", "seg", "media", "stream", "frag"];
/// Their first letters.
const PARTS_BEGIN: [char; 6] = ['i', 'p', 'm', 'c', 's', 'f'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_habits_of_packagers() {
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
