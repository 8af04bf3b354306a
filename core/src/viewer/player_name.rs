//! A short name of a viewer's player: the library that the page reports or the protocol, and the family and version of
//! the program by its user agent. An agent of no known family names nothing; nothing is guessed.

use std::fmt::{self, Write};

use memchr::memmem;

use crate::model::Protocol;

/// What names a player: `hls in Chrome 126`, `hls.js 1.7.4 in Safari 17`, `ExoPlayer 2.19`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlayerName<'a> {
    /// The player as the page reports it; empty where it does not. See [`PlayerName::is_valid`].
    pub reported: &'a str,
    /// How the class is delivered.
    pub protocol: Option<Protocol>,
    /// The user agent, still escaped as in its log line.
    pub agent: &'a [u8],
}

/// A player with a name.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    reported: &'a str,
    protocol: Option<Protocol>,
    program: Option<(&'static str, &'a str)>,
}

impl<'a> PlayerName<'a> {
    /// Whether a page may report this as its player: 1 to 32 bytes of letters, digits, blanks and ` .-_/+`.
    #[must_use]
    pub fn is_valid(reported: &str) -> bool {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b" .-_/+".contains(&byte);
        !reported.is_empty() && reported.len() <= MAX_REPORTED && reported.bytes().all(is_good)
    }

    /// The same for a class delivered by `protocol`.
    #[must_use]
    pub const fn by(self, protocol: Option<Protocol>) -> Self {
        Self { protocol, ..self }
    }

    /// The name; `None` where neither the page nor the agent gives one.
    #[must_use]
    pub fn named(self) -> Option<Named<'a>> {
        let Self { reported, protocol, agent } = self;
        let family = FAMILIES.iter().find_map(|family| Some((family, memmem::find(agent, family.mark.as_bytes())?)));
        let program = family.map(|(family, at)| (family.name, family.version(&agent[at..])));
        // The name of a native application already implies its protocol.
        let protocol = protocol.filter(|_| family.is_some_and(|(family, _)| family.is_browser));
        (program.is_some() || !reported.is_empty()).then_some(Named { reported, protocol, program })
    }
}

impl Named<'_> {
    /// Whether `name` is this player's name; without an allocation.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let mut rest = Rest(name);
        write!(rest, "{self}").is_ok() && rest.0.is_empty()
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reported = match self.protocol {
            Some(protocol) if self.reported.is_empty() => protocol.as_str(),
            _ => self.reported,
        };
        f.write_str(reported)?;
        let Some((family, version)) = self.program else {
            return Ok(());
        };
        f.write_str(if reported.is_empty() { "" } else { " in " })?;
        f.write_str(family)?;
        f.write_str(if version.is_empty() { "" } else { " " })?;
        f.write_str(version)
    }
}

/// The rest of a text that is still to be compared.
struct Rest<'a>(&'a str);

impl Write for Rest<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// A family of programs, recognised by a mark in the user agent.
struct Family {
    mark: &'static str,
    name: &'static str,
    /// How many components of its version identify a release.
    numbers: usize,
    is_browser: bool,
}

impl Family {
    /// The version in an agent that begins with the mark.
    fn version<'a>(&self, agent: &'a [u8]) -> &'a str {
        let behind = if self.mark == APPLE {
            // Its own number identifies no release; that of the system does: `CPU OS 17_2 like`, `Intel Mac OS X 14_2`.
            let system = memmem::find(agent, b" OS ").map_or(&b""[..], |at| &agent[at + 4..]);
            system.strip_prefix(b"X ").unwrap_or(system)
        } else {
            &agent[self.mark.len()..]
        };
        let mut numbers = 1;
        let end = behind.iter().position(|byte| {
            numbers += usize::from(*byte == b'.');
            !(byte.is_ascii_digit() || *byte == b'.') || numbers > self.numbers
        });
        let version = &behind[..end.unwrap_or(behind.len())];
        let is_good = version.len() <= MAX_VERSION && version.first().is_some_and(u8::is_ascii_digit);
        std::str::from_utf8(version).ok().filter(|_| is_good).map_or("", |version| version.trim_end_matches('.'))
    }
}

const fn application(mark: &'static str, name: &'static str, numbers: usize) -> Family {
    Family { mark, name, numbers, is_browser: false }
}

const fn browser(mark: &'static str, name: &'static str) -> Family {
    Family { mark, name, numbers: 1, is_browser: true }
}

/// The first mark found counts: a program built on another comes before it.
const FAMILIES: [Family; 22] = [
    application("ExoPlayerLib/", "ExoPlayer", 2),
    application("AndroidXMedia3/", "Media3", 2),
    application(APPLE, "AVPlayer", 1),
    application("ijkplayer/", "ijkplayer", 2),
    application("VLC/", "VLC", 1),
    application("Lavf/", "FFmpeg", 1),
    browser("wxwork/", "WeCom"),
    browser("MicroMessenger/", "WeChat"),
    browser("DingTalk/", "DingTalk"),
    browser("Lark/", "Feishu"),
    browser("MQQBrowser/", "QQ Browser"),
    browser("UCBrowser/", "UC Browser"),
    browser("HuaweiBrowser/", "Huawei Browser"),
    browser("MiuiBrowser/", "Mi Browser"),
    browser("SamsungBrowser/", "Samsung Internet"),
    browser("Edg/", "Edge"),
    browser("OPR/", "Opera"),
    browser("FxiOS/", "Firefox for iOS"),
    browser("CriOS/", "Chrome for iOS"),
    browser("Firefox/", "Firefox"),
    browser("Chrome/", "Chrome"),
    browser("Version/", "Safari"),
];
const APPLE: &str = "AppleCoreMedia/";
/// Longest reported name in bytes.
pub(super) const MAX_REPORTED: usize = 32;
const MAX_VERSION: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(reported: &str, protocol: Option<Protocol>, agent: &str) -> Option<String> {
        PlayerName { reported, protocol, agent: agent.as_bytes() }.named().map(|named| named.to_string())
    }

    #[test]
    fn known_agents_are_named_by_family_and_release() {
        for (agent, expected) in [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                "hls in Chrome 126",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/125.0.1.2",
                "hls in Edge 125",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
                "hls in Safari 17",
            ),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "hls in Firefox 128"),
            (
                "Mozilla/5.0 (Linux; Android 13; wv) Chrome/116.0.0.0 Mobile Safari/537.36 MicroMessenger/8.0.49.2600",
                "hls in WeChat 8",
            ),
            ("School/3.1 (Linux;Android 13) ExoPlayerLib/2.18.1", "ExoPlayer 2.18"),
            ("School/3.1 (Linux;Android 14) AndroidXMedia3/1.3.1", "Media3 1.3"),
            ("AppleCoreMedia/1.0.0.21C62 (iPhone; U; CPU OS 17_2 like Mac OS X; en_us)", "AVPlayer 17"),
            ("AppleCoreMedia/1.0.0.23C71 (Macintosh; U; Intel Mac OS X 14_2; en_us)", "AVPlayer 14"),
            ("Lavf/60.3.100", "FFmpeg 60"),
            ("VLC/3.0.18 LibVLC/3.0.18", "VLC 3"),
            ("Firefox/", "hls in Firefox"),
            ("AppleCoreMedia/1.0.0", "AVPlayer"),
        ] {
            assert_eq!(name("", Some(Protocol::Hls), agent).as_deref(), Some(expected), "{agent}");
        }
        assert_eq!(name("", Some(Protocol::Hls), "curl/8.1"), None);
        assert_eq!(name("", None, "Chrome/9 "), Some("Chrome 9".to_owned()));
    }

    #[test]
    fn a_reported_player_takes_precedence() {
        assert_eq!(
            name("hls.js 1.7.4", Some(Protocol::Hls), "Chrome/126.0"),
            Some("hls.js 1.7.4 in Chrome 126".to_owned())
        );
        assert_eq!(name("shaka", None, "strange"), Some("shaka".to_owned()));
        assert!(PlayerName::is_valid("hls.js 1.7.4") && !PlayerName::is_valid(""));
        assert!(!PlayerName::is_valid("a\nb") && !PlayerName::is_valid(&"a".repeat(33)));
    }

    proptest! {
        #[test]
        fn any_agent_gives_a_short_name_equal_to_itself(agent in "(Chrome/|AppleCoreMedia/|x| OS |[0-9._]{1,12}|\\PC{0,3}){0,8}") {
            if let Some(named) = (PlayerName { reported: "", protocol: None, agent: agent.as_bytes() }).named() {
                let text = named.to_string();
                prop_assert!(text.len() <= 24 && named.is(&text) && !named.is(&format!("{text}x")), "{text}");
            }
        }
    }
}
