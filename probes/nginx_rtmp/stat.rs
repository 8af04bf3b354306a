//! Reads one `/stat` answer by element names, so that nginx-rtmp, nginx-http-flv and the forks with more fields are one
//! format. Other or truncated trees are refused; unknown elements are skipped, and nothing recurses.

use std::net::IpAddr;
use std::time::Duration;

use liveqos_core::model::StreamKey;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};
use quick_xml::reader::Reader;

use crate::probe::{ProbeError, malformed};

/// The answer of one worker process.
#[derive(Debug, Default)]
pub(super) struct Stat {
    /// The worker that answered.
    pub(super) pid: String,
    /// Seconds since this worker started.
    pub(super) uptime: Option<u64>,
    /// Its live streams, in the order listed.
    pub(super) streams: Vec<StatStream>,
    /// Streams were left out because of [`MAX_STREAMS`].
    pub(super) cut: bool,
}

/// One `<stream>` below `<live>`.
#[derive(Debug)]
pub(super) struct StatStream {
    pub(super) key: StreamKey,
    /// Payload bytes received from the publisher.
    pub(super) bytes_in: Option<u64>,
    /// Payload bytes times receivers, including relays: computed by the module, not measured on the wire.
    pub(super) bytes_out: Option<u64>,
    /// `meta/video/frame_rate`: what the encoder declared, truncated to an integer.
    pub(super) frame_rate: Option<f64>,
    /// The stream has a publisher.
    pub(super) publishing: bool,
    /// Connections counted by the server, including publisher and relays.
    pub(super) nclients: Option<u32>,
    pub(super) clients: Vec<StatClient>,
    /// Clients were left out because of [`MAX_CLIENTS`].
    pub(super) cut: bool,
}

/// One `<client>` of a stream.
#[derive(Debug, Default)]
pub(super) struct StatClient {
    /// nginx's connection number, unique within a worker's life.
    pub(super) id: Option<u64>,
    /// `<address>`, where it is an address.
    pub(super) address: Option<IpAddr>,
    pub(super) peer: Peer,
    /// It is an HTTP-FLV viewer of the fork, by the name the fork gives such sessions.
    pub(super) http_flv: bool,
    /// Time since it connected.
    pub(super) age: Option<Duration>,
    /// Messages not sent to it because it was slow.
    pub(super) dropped: Option<u64>,
    /// Bytes sent to it; reported only by the fork with `nginx_rtmp_version` 1.1.7.x-dev.
    pub(super) bytes_out: Option<u64>,
    /// It is the publisher.
    pub(super) publishing: bool,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// A publisher or a viewer.
    #[default]
    Direct,
    /// Another server, by the relay's own name or because the address is an upstream URL.
    Relay,
    /// Another worker of this server (`unix:`), which sends or receives a copy.
    Copy,
}

impl Stat {
    /// Reads a whole answer.
    ///
    /// # Errors
    /// [`ProbeError::Malformed`] when the XML is broken, ends early, nests too deep or has another root.
    pub(super) fn read(body: &[u8]) -> Result<Self, ProbeError> {
        let text = String::from_utf8_lossy(body);
        let mut reader = Reader::from_str(&text);
        let mut build = Build::default();
        loop {
            let event = reader
                .read_event()
                .map_err(|error| malformed(WHAT, &format_args!("byte {}: {error}", reader.error_position())))?;
            match event {
                Event::Start(tag) => build.open(tag.local_name().into_inner())?,
                Event::End(_) => build.close(),
                Event::Empty(tag) => {
                    build.open(tag.local_name().into_inner())?;
                    build.close();
                }
                Event::Text(text) => build.add_text(&text.xml10_content()),
                Event::CData(text) => build.add_text(&text.xml10_content()),
                Event::GeneralRef(reference) => build.add_text(&resolve(&reference)),
                Event::Eof => return build.finish(),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
    }
}

/// The tree while it is read: the present place, and the unfinished parts.
#[derive(Debug, Default)]
struct Build {
    stat: Stat,
    /// Open elements from the root, each with its name where it is a leaf.
    path: Vec<(Node, String)>,
    text: String,
    root_seen: bool,
    app: String,
    stream: Option<Draft>,
    client: Option<StatClient>,
    /// Clients kept of the whole answer.
    clients: usize,
}

/// A `<stream>` whose name is not yet known.
#[derive(Debug, Default)]
struct Draft {
    name: String,
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    frame_rate: Option<f64>,
    publishing: bool,
    nclients: Option<u32>,
    clients: Vec<StatClient>,
    cut: bool,
}

/// The elements that matter; everything else is a leaf, and so is all below a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Root,
    Server,
    Application,
    Live,
    Stream,
    Client,
    Meta,
    Video,
    Leaf,
}

impl Build {
    fn open(&mut self, name: &str) -> Result<(), ProbeError> {
        if self.path.len() >= MAX_DEPTH {
            return Err(malformed(WHAT, &format_args!("nested deeper than {MAX_DEPTH} elements")));
        }
        self.text.clear();
        let node = match (self.path.last().map(|(node, _)| *node), name) {
            (None, _) => self.open_root(name)?,
            (Some(Node::Root), "server") => Node::Server,
            (Some(Node::Server), "application") => Node::Application,
            (Some(Node::Application), "live") => Node::Live,
            (Some(Node::Live), "stream") => Node::Stream,
            (Some(Node::Stream), "client") => Node::Client,
            (Some(Node::Stream), "meta") => Node::Meta,
            (Some(Node::Meta), "video") => Node::Video,
            _ => Node::Leaf,
        };
        match node {
            Node::Application => self.app.clear(),
            Node::Stream => self.stream = Some(Draft::default()),
            Node::Client => self.client = Some(StatClient::default()),
            _ => {}
        }
        let name = if node == Node::Leaf { name.chars().take(MAX_TAG).collect() } else { String::new() };
        self.path.push((node, name));
        Ok(())
    }

    fn open_root(&mut self, name: &str) -> Result<Node, ProbeError> {
        if self.root_seen {
            return Err(malformed(WHAT, &"a second root element"));
        }
        if name != "rtmp" && name != "http-flv" {
            let tag: String = name.chars().take(MAX_TAG).collect();
            return Err(malformed(WHAT, &format_args!("root element is <{tag}>, not <rtmp> or <http-flv>")));
        }
        self.root_seen = true;
        Ok(Node::Root)
    }

    fn add_text(&mut self, text: &str) {
        let room = MAX_TEXT.saturating_sub(self.text.len());
        self.text.push_str(&text[..text.floor_char_boundary(room)]);
    }

    fn close(&mut self) {
        let Some((node, name)) = self.path.pop() else { return };
        match node {
            Node::Leaf => self.leaf(&name),
            Node::Client => self.close_client(),
            Node::Stream => self.close_stream(),
            _ => {}
        }
        self.text.clear();
    }

    fn leaf(&mut self, name: &str) {
        let text = self.text.trim();
        match (self.path.last().map(|(node, _)| *node), name) {
            (Some(Node::Root), "pid") => text.clone_into(&mut self.stat.pid),
            (Some(Node::Root), "uptime") => self.stat.uptime = text.parse().ok(),
            (Some(Node::Application), "name") => text.clone_into(&mut self.app),
            (Some(Node::Stream), _) => {
                if let Some(stream) = &mut self.stream {
                    stream.leaf(name, text);
                }
            }
            (Some(Node::Video), "frame_rate") => {
                if let Some(stream) = &mut self.stream {
                    stream.frame_rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
                }
            }
            (Some(Node::Client), _) => {
                if let Some(client) = &mut self.client {
                    client.leaf(name, text);
                }
            }
            _ => {}
        }
    }

    fn close_client(&mut self) {
        let (Some(client), Some(stream)) = (self.client.take(), &mut self.stream) else {
            return;
        };
        if self.clients >= MAX_CLIENTS {
            stream.cut = true;
        } else {
            self.clients += 1;
            stream.clients.push(client);
        }
    }

    fn close_stream(&mut self) {
        let Some(draft) = self.stream.take() else { return };
        let app = self.app.split('?').next().unwrap_or_default();
        let Ok(key) = StreamKey::new(None, app, &draft.name) else {
            return;
        };
        if self.stat.streams.len() >= MAX_STREAMS {
            self.stat.cut = true;
            return;
        }
        self.stat.streams.push(StatStream {
            key,
            bytes_in: draft.bytes_in,
            bytes_out: draft.bytes_out,
            frame_rate: draft.frame_rate,
            publishing: draft.publishing,
            nclients: draft.nclients,
            clients: draft.clients,
            cut: draft.cut,
        });
    }

    fn finish(self) -> Result<Stat, ProbeError> {
        if !self.root_seen {
            return Err(malformed(WHAT, &"no element at all"));
        }
        if !self.path.is_empty() {
            return Err(malformed(WHAT, &format_args!("ended inside {} open elements", self.path.len())));
        }
        Ok(self.stat)
    }
}

impl Draft {
    fn leaf(&mut self, name: &str, text: &str) {
        match name {
            "name" => text.clone_into(&mut self.name),
            "bytes_in" => self.bytes_in = text.parse().ok(),
            "bytes_out" => self.bytes_out = text.parse().ok(),
            "nclients" => self.nclients = text.parse().ok(),
            "publishing" => self.publishing = true,
            _ => {}
        }
    }
}

impl StatClient {
    fn leaf(&mut self, name: &str, text: &str) {
        match name {
            "id" => self.id = text.parse().ok(),
            "address" => {
                self.address = text.parse().ok().map(|address: IpAddr| address.to_canonical());
                let peer = match self.address {
                    None if text.starts_with("unix:") => Peer::Copy,
                    None if !text.is_empty() => Peer::Relay,
                    _ => Peer::Direct,
                };
                self.peer = self.peer.max(peer);
            }
            "flashver" => {
                self.http_flv = text.starts_with(HTTP_FLV);
                if text == LOCAL_RELAY {
                    self.peer = self.peer.max(Peer::Relay);
                }
            }
            "time" => self.age = text.parse().ok().map(Duration::from_millis),
            "dropped" => self.dropped = text.parse().ok(),
            "bytes_out" => self.bytes_out = text.parse().ok(),
            "publishing" => self.publishing = true,
            _ => {}
        }
    }
}

/// A character or predefined reference; others, which only a document type could define, become U+FFFD.
fn resolve(reference: &BytesRef<'_>) -> String {
    match reference.resolve_char_ref() {
        Ok(Some(char)) => char.to_string(),
        _ => resolve_predefined_entity(reference).unwrap_or("\u{fffd}").to_owned(),
    }
}

/// The name that the module's relay gives itself.
const LOCAL_RELAY: &str = "ngx-local-relay";
/// The name that nginx-http-flv-module gives an HTTP-FLV viewer, before its version.
const HTTP_FLV: &str = "flv_live";
/// Most streams read from one answer; the rest is left out and the views are marked partial.
pub(super) const MAX_STREAMS: usize = 4_096;
/// Most clients read from one answer; the rest is left out and their stream's view is marked partial.
pub(super) const MAX_CLIENTS: usize = 65_536;
/// Deepest nesting accepted; the real tree has eight levels.
const MAX_DEPTH: usize = 32;
/// Bytes of text kept of one element; nginx's own names hold at most 256.
const MAX_TEXT: usize = 1_024;
/// Characters kept of an element's name.
const MAX_TAG: usize = 32;
const WHAT: &str = "nginx-rtmp /stat";

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(stream: &str) -> String {
        format!(
            "<rtmp><pid>7</pid><uptime>3</uptime><server><application><name>live</name><live>{stream}</live></application></server></rtmp>"
        )
    }

    #[test]
    fn names_are_unescaped_and_vod_is_skipped() {
        let body = "<http-flv><pid>7</pid><server><application><name>a</name>\
            <play><stream><name>film</name><nclients>1</nclients></stream></play>\
            <live><stream><name>x&amp;y&#33;</name></stream></live></application></server></http-flv>";
        let stat = Stat::read(body.as_bytes()).expect("a good answer");
        let keys: Vec<_> = stat.streams.iter().map(|stream| stream.key.as_str()).collect();
        assert_eq!(keys, ["a/x&y!"]);
    }

    #[test]
    fn other_and_truncated_trees_are_errors() {
        for body in
            ["", "moved", "<html><body>404</body></html>", "{\"http-flv\":{}}", "<rtmp><pid>7</pid>", "<rtmp></server>"]
        {
            assert!(matches!(Stat::read(body.as_bytes()), Err(ProbeError::Malformed { .. })), "{body}");
        }
        let deep = wrap(&"<a>".repeat(100_000));
        assert!(Stat::read(deep.as_bytes()).is_err());
    }

    #[test]
    fn what_exceeds_a_limit_is_left_out_and_marked() {
        let many = wrap(&"<stream><name>s</name></stream>".repeat(MAX_STREAMS + 1));
        let stat = Stat::read(many.as_bytes()).expect("a good answer");
        assert_eq!((stat.streams.len(), stat.cut), (MAX_STREAMS, true));
        let many = wrap(&format!("<stream><name>s</name>{}</stream>", "<client/>".repeat(MAX_CLIENTS + 1)));
        let stat = Stat::read(many.as_bytes()).expect("a good answer");
        assert_eq!((stat.streams[0].clients.len(), stat.streams[0].cut), (MAX_CLIENTS, true));
    }
}
