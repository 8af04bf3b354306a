//! Which class an HTTP path belongs to, and what is asked for. Decides by the habits of HLS, DASH and HTTP-FLV packagers; refuses a path
//! that is not media, so that pages, icons and reports are no class.

use crate::session::Protocol;

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
    /// Reads a path: `/hls/c1/67.ts`, `/hls/c1-67.ts`, `/hls/c1.m3u8`, `/hls/c1/index.m3u8`, `/dash/c1/chunk-stream0-00034.m4s` and
    /// `/live/c1.flv` are all of class `c1`. `None` when it is not media.
    #[must_use]
    pub fn of(path: &'a str) -> Option<Self> {
        let path = path.split('?').next()?;
        let (folder, file) = path.rsplit_once('/')?;
        let (stem, ending) = file.rsplit_once('.')?;
        let (protocol, is_manifest) = kind_of(ending)?;
        let stem = if is_manifest || ending == "flv" { stem } else { without_number(stem) };
        let own = !stem.is_empty() && !PARTS.iter().any(|part| stem.starts_with(part));
        let (folder, name) = if own { (folder, stem) } else { folder.rsplit_once('/')? };
        let app = folder.rsplit('/').next().unwrap_or_default();
        (!name.is_empty()).then_some(Self { app, name, protocol, is_manifest })
    }
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
    let text = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    if text.len() < stem.len() { text.trim_end_matches(['-', '_', '.']) } else { stem }
}

/// Beginnings of names that are parts of a class, not the class.
const PARTS: [&str; 10] =
    ["index", "playlist", "master", "manifest", "chunk", "init", "seg", "media", "stream", "frag"];

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
