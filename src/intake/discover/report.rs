//! The media servers found on this host, and their form as a configuration file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::Serialize;

use crate::intake::poll::Summary;
use crate::intake::source::SourceSettings;

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Discovery {
    /// Every program that is known as a media server, whether it answered or not, in the order of its process.
    pub servers: Vec<FoundServer>,
}

/// A running program that is known as a media server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FoundServer {
    /// The kind, as in the configuration.
    pub kind: &'static str,
    /// Lines that explain how to enable its status interface.
    pub how_to_enable: &'static [&'static str],
    /// The process name.
    pub process: String,
    /// The process ids, ascending.
    pub pids: Vec<u32>,
    /// The addresses on which it listens; `None` if this user may not see them.
    pub listens: Option<BTreeSet<SocketAddr>>,
    /// The status interface that answered.
    pub answer: Option<Answer>,
    /// Number of requested URLs.
    pub tried: usize,
    /// The most informative failure, if nothing answered.
    pub failure: Option<String>,
}

/// A status interface that a probe understood.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    /// The name of the new source.
    pub name: String,
    /// The base URL.
    pub url: String,
    /// What its probe read.
    pub summary: Summary,
}

impl Discovery {
    /// A source for each server that answered.
    #[must_use]
    pub(super) fn sources(&self) -> Vec<SourceSettings> {
        let answering = self.servers.iter().filter_map(|server| Some((server.kind, server.answer.as_ref()?)));
        answering
            .map(|(kind, answer)| SourceSettings {
                kind: kind.to_owned(),
                name: Some(answer.name.clone()),
                url: Some(answer.url.clone()),
                ..SourceSettings::default()
            })
            .collect()
    }

    /// A configuration in TOML: a `[[sources]]` table for each server that answered, a comment for each that did not.
    #[must_use]
    pub(super) fn to_toml(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            // Writing to a `String` cannot fail.
            server.write(&mut text).ok();
        }
        if self.servers.is_empty() {
            text.push_str("# No media server was found on this host. Start it first, or configure its status URL:\n");
            text.push_str("# [[sources]]\n# kind = \"srs\"\n# url = \"http://127.0.0.1:1985\"\n");
        }
        text
    }

    pub(super) fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.servers.iter().filter_map(|server| server.answer.as_ref())
    }

    /// `kind`, or `kind-2` and so on if the name is taken.
    pub(super) fn free_name(&self, kind: &str) -> String {
        let taken: BTreeSet<&str> = self.answers().map(|answer| answer.name.as_str()).collect();
        let numbered = (2..).map(|number| format!("{kind}-{number}"));
        let mut names = std::iter::once(kind.to_owned()).chain(numbered);
        names.find(|name| !taken.contains(name.as_str())).unwrap_or_default()
    }
}

impl FoundServer {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let pids: Vec<String> = self.pids.iter().take(MAX_SHOWN).map(u32::to_string).collect();
        let more = if self.pids.len() > MAX_SHOWN { " ..." } else { "" };
        let process = one_line(&self.process);
        writeln!(text, "# {}: process \"{process}\" ({}{more}), {}", self.kind, pids.join(" "), self.addresses())?;
        let Some(answer) = &self.answer else {
            return self.write_unanswered(text);
        };
        writeln!(text, "# Status: {}.", answer.summary)?;
        writeln!(text, "[[sources]]\nkind = \"{}\"\nname = \"{}\"\nurl = \"{}\"\n", self.kind, answer.name, answer.url)
    }

    fn write_unanswered(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# Its status interface did not answer ({} URLs tried).", self.tried)?;
        if let Some(failure) = &self.failure {
            writeln!(text, "# Most informative failure: {}", one_line(failure))?;
        }
        for line in self.how_to_enable {
            writeln!(text, "# {line}")?;
        }
        writeln!(text, "# [[sources]]\n# kind = \"{}\"\n# url = \"http://127.0.0.1:PORT/PATH\"\n", self.kind)
    }

    fn addresses(&self) -> String {
        match &self.listens {
            None => "its ports are hidden from this user: run as root to see them".to_owned(),
            Some(listens) if listens.is_empty() => {
                "listening on nothing here (in a container: publish its status port)".to_owned()
            }
            Some(listens) => {
                let addresses: Vec<String> = listens.iter().take(MAX_SHOWN).map(SocketAddr::to_string).collect();
                let more = if listens.len() > MAX_SHOWN { " ..." } else { "" };
                format!("listening on {}{more}", addresses.join(" "))
            }
        }
    }
}

/// External text made fit for a comment line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN_CHARS).collect()
}

/// Most process ids and addresses shown per program.
const MAX_SHOWN: usize = 8;
/// Most characters shown of an external text.
const MAX_SHOWN_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sources_of_one_kind_get_different_names() {
        let mut found = Discovery::default();
        let mut names = Vec::new();
        for number in 0..3 {
            let name = found.free_name("srs");
            names.push(name.clone());
            let summary = Summary { requests: 1, streams: 0, viewers: None, duration: Duration::ZERO };
            let answer = Some(Answer { name, url: format!("http://127.0.0.1:{number}"), summary });
            let (process, pids) = ("srs".to_owned(), vec![number]);
            found.servers.push(FoundServer {
                kind: "srs",
                how_to_enable: &[],
                process,
                pids,
                listens: None,
                answer,
                tried: 1,
                failure: None,
            });
        }
        assert_eq!(names, ["srs", "srs-2", "srs-3"]);
    }
}
