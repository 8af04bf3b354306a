//! Shared by the tests of this folder: source kinds, and servers that follow a script.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use liveqos_core::model::{Fact, Observation, Protocol, ServerView, StreamKey, Timestamp};
use liveqos_probes::probe::{Hook, Intake, Kind, Probe, ProbeError, Reply, Request, SettingsError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::poll::Now;
use super::source::{Source, SourceSettings};

pub(crate) static KINDS: &[&Kind] = &[&FAKE, &PUSHED, &SRS];

/// A server that answers lines of `stream viewers`, `more PATH` and `panic`.
static FAKE: Kind = Kind {
    name: "fake",
    about: "for tests",
    intake: Intake::Poll,
    default_url: "http://127.0.0.1:9/stat",
    default_interval: Duration::from_secs(5),
    media_ports: &[1935],
    processes: &["fake-server"],
    status_paths: &[],
    how_to_enable: &["Enable its status interface, then set url:"],
    hook_success: "",
    build,
    schema: || schemars::schema_for!(FakeSettings),
};
static PUSHED: Kind = Kind { name: "pushed", intake: Intake::Push, processes: &[], ..FAKE };
static SRS: Kind = Kind {
    name: "srs",
    processes: &["srs"],
    status_paths: &[""],
    how_to_enable: &["http_api { enabled on; listen 1985; }"],
    hook_success: "0",
    ..FAKE
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct FakeSettings {
    /// How many pages are requested at once.
    #[serde(default = "one")]
    pages: u32,
}

const fn one() -> u32 {
    1
}

fn build(table: toml::Table) -> Result<Box<dyn Probe>, SettingsError> {
    let settings: FakeSettings =
        table.try_into().map_err(|error: toml::de::Error| SettingsError(error.message().to_owned()))?;
    Ok(Box::new(FakeProbe { settings }))
}

struct FakeProbe {
    settings: FakeSettings,
}

impl Probe for FakeProbe {
    fn ask(&mut self) -> Vec<Request> {
        (0..self.settings.pages)
            .map(|tag| Request { path: if tag == 0 { String::new() } else { format!("/{tag}") }, tag })
            .collect()
    }

    fn read(&mut self, reply: &Reply<'_>, out: &mut Vec<Observation>) -> Result<Vec<Request>, ProbeError> {
        read(reply.source, reply.asked_at, reply.body, out)
    }

    fn read_hook(&mut self, hook: &Hook<'_>, out: &mut Vec<Observation>) -> Result<(), ProbeError> {
        read(hook.source, hook.at, hook.body, out).map(|_| ())
    }
}

fn read(source: &Arc<str>, at: Timestamp, body: &[u8], out: &mut Vec<Observation>) -> Result<Vec<Request>, ProbeError> {
    let mut more = Vec::new();
    let malformed = |detail: &str| ProbeError::Malformed { what: "the fake's lines", detail: detail.to_owned() };
    for line in std::str::from_utf8(body).map_err(|_| malformed("not UTF-8"))?.lines() {
        match line.split_once(' ') {
            Some(("more", path)) => more.push(Request { path: path.to_owned(), tag: 9 }),
            Some((stream, viewers)) => {
                let viewers = viewers.parse().map_err(|_| malformed("no number"))?;
                let view = ServerView { viewers: Some(vec![(Protocol::Rtmp, viewers)]), ..ServerView::default() };
                let stream = StreamKey::parse(stream).map_err(|_| malformed("no stream"))?;
                out.push(Observation { source: source.clone(), stream, at, fact: Fact::Server(Box::new(view)) });
            }
            None if line == "panic" => panic!("as scripted"),
            None => return Err(malformed("a line without a space")),
        }
    }
    Ok(more)
}

/// What a [`Server`] does with a request.
#[derive(Clone)]
pub(crate) enum Does {
    /// Answers with this status and body.
    Answers(u16, &'static str),
    /// Sends these bytes, then closes.
    Sends(Vec<u8>),
    /// Answers after this delay.
    Late(Duration, &'static str),
    /// Never answers.
    Hangs,
    /// Sends one byte of its body every 10 ms, without end.
    Drips,
    /// Sends as fast as it can, without end.
    Floods,
}

/// A server on a port of its own that counts its requests.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) asked: Arc<AtomicUsize>,
    /// The last request's head.
    pub(crate) head: Arc<std::sync::Mutex<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// For the path and number of each request, does what `script` returns.
    pub(crate) async fn start(script: impl Fn(&str, usize) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(listener, script)
    }

    pub(crate) fn on(listener: TcpListener, script: impl Fn(&str, usize) -> Does + Send + Sync + 'static) -> Self {
        let port = listener.local_addr().expect("bound").port();
        let (asked, head) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(String::new())));
        let (script, count, last) = (Arc::new(script), asked.clone(), head.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, count, last) = (script.clone(), count.clone(), last.clone());
                connections.spawn(async move {
                    let Some(head) = head_of(&mut stream).await else { return };
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    *last.lock().expect("whole") = head;
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    does(script(&path, number), &mut stream).await;
                });
            }
        });
        Self { port, asked, head, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// A `fake` source at this server, with more keys of its table.
    pub(crate) fn source(&self, more: &str) -> Arc<Source> {
        let text = format!("kind = 'fake'\nurl = '{}'\ninterval = '250ms'\n{more}", self.url());
        Arc::new(Source::new(&settings(&text), KINDS).expect("a good source"))
    }
}

async fn head_of(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn does(what: Does, stream: &mut TcpStream) {
    const OPEN: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    let whole = |status: u16, body: &str| {
        format!("HTTP/1.1 {status} Any\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
            .into_bytes()
    };
    // The client may disconnect at any write, which ends the connection.
    match what {
        Does::Answers(status, body) => stream.write_all(&whole(status, body)).await.ok(),
        Does::Sends(bytes) => stream.write_all(&bytes).await.ok(),
        Does::Late(delay, body) => {
            tokio::time::sleep(delay).await;
            stream.write_all(&whole(200, body)).await.ok()
        }
        Does::Hangs => std::future::pending().await,
        Does::Drips => {
            stream.write_all(OPEN).await.ok();
            while stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            None
        }
        Does::Floods => {
            stream.write_all(OPEN).await.ok();
            while stream.write_all(&[b'a'; 16_384]).await.is_ok() {}
            None
        }
    };
}

/// The settings of a table in TOML.
pub(crate) fn settings(text: &str) -> SourceSettings {
    toml::from_str(text).expect("readable")
}

/// A clock that advances by one millisecond each time it is read.
pub(crate) fn ticking() -> Now {
    let millis = AtomicU64::new(1_000_000);
    Arc::new(move || Timestamp::from_millis(millis.fetch_add(1, Ordering::SeqCst)))
}
