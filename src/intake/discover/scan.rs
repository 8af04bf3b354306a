//! Finds the media servers of this host, for `liveqos discover` and for `liveqos run` without a configuration. Decides
//! by asking: a server is found when its probe understood it; what only looks like one is told with what to switch on
//! in it.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use liveqos_probes::probe::{Intake, Kind};
use reqwest::Url;
use serde::Serialize;

use super::process;
use super::process::Program;
use crate::intake::poll::round::try_once;
use crate::intake::poll::{FetchError, HttpClient, Now, Summary};
use crate::intake::source::{Source, SourceSettings};

/// What was found on this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Discovery {
    /// Every program that is known as a media server, answering or not, in the order of its process.
    pub servers: Vec<FoundServer>,
}

/// A running program that is known as a media server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FoundServer {
    /// Its kind, as in configuration.
    pub kind: &'static str,
    /// What to configure in it when it does not answer, in lines.
    pub how_to_enable: &'static [&'static str],
    /// Its process name.
    pub process: String,
    /// Its processes, ascending.
    pub pids: Vec<u32>,
    /// Where it listens; `None` where this user may not see it.
    pub listens: Option<BTreeSet<SocketAddr>>,
    /// The status interface that answered.
    pub answer: Option<Answer>,
    /// URLs that were asked.
    pub tried: usize,
    /// The most telling failure, where nothing answered.
    pub failure: Option<String>,
}

/// A status interface that a probe understood.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    /// The name of the source to be.
    pub name: String,
    /// Its base URL.
    pub url: String,
    /// What it told.
    pub summary: Summary,
}

/// A source for each media server of this host that answers.
pub(crate) async fn sources(now: &Now) -> Vec<SourceSettings> {
    match here(now).await {
        Ok(found) => found.sources(),
        Err(error) => {
            tracing::warn!("looking for media servers on this host: {error}");
            Vec::new()
        }
    }
}

/// A configuration in TOML for the media servers of this host, as `liveqos discover` prints it.
pub(crate) async fn report(now: &Now) -> String {
    match here(now).await {
        Ok(found) => found.to_toml(),
        Err(error) => format!("# Looking for media servers on this host: {error}\n"),
    }
}

async fn here(now: &Now) -> Result<Discovery, FetchError> {
    Ok(discover(Path::new("/proc"), liveqos_probes::KINDS, &HttpClient::new()?, now).await)
}

/// Looks through `proc` (in production `/proc`) for programs of `kinds` and asks each on the loopback, one question at
/// a time, each for at most half a second, at most [`MAX_TRIES`] for a program.
pub(super) async fn discover(proc: &Path, kinds: &[&'static Kind], fetcher: &HttpClient, now: &Now) -> Discovery {
    let (sockets, programs) = look(proc, kinds).await;
    let mut found = Discovery::default();
    for program in programs {
        for kind in kinds.iter().filter(|kind| is_of(&program.name, kind)) {
            let mut server = ask(&program, kind, &sockets, ProbeContext { kinds, fetcher, now }).await;
            if let Some(answer) = &mut server.answer {
                // The same interface seen twice (by a master and a worker with other sockets) is one source.
                if found.answers().any(|known| known.url == answer.url) {
                    continue;
                }
                answer.name = found.free_name(kind.name);
            }
            found.servers.push(server);
        }
    }
    found
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
            text.push_str("# No media server was found on this host. Start it first, or name its status URL:\n");
            text.push_str("# [[sources]]\n# kind = \"srs\"\n# url = \"http://127.0.0.1:1985\"\n");
        }
        text
    }

    fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.servers.iter().filter_map(|server| server.answer.as_ref())
    }

    /// `kind`, or `kind-2` and so on where that is taken.
    fn free_name(&self, kind: &str) -> String {
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
        writeln!(text, "# {}: process \"{process}\" ({}{more}), {}", self.kind, pids.join(" "), self.place())?;
        let Some(answer) = &self.answer else {
            return self.write_silent(text);
        };
        writeln!(text, "# It told: {}.", answer.summary)?;
        writeln!(text, "[[sources]]\nkind = \"{}\"\nname = \"{}\"\nurl = \"{}\"\n", self.kind, answer.name, answer.url)
    }

    fn write_silent(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# Its status interface did not answer ({} URLs tried).", self.tried)?;
        if let Some(failure) = &self.failure {
            writeln!(text, "# Nearest to an answer: {}", one_line(failure))?;
        }
        for line in self.how_to_enable {
            writeln!(text, "# {line}")?;
        }
        writeln!(text, "# [[sources]]\n# kind = \"{}\"\n# url = \"http://127.0.0.1:PORT/PATH\"\n", self.kind)
    }

    fn place(&self) -> String {
        match &self.listens {
            None => "its ports are hidden from this user: run as root to see them".to_owned(),
            Some(listens) if listens.is_empty() => {
                "listening on nothing here (in a container: publish its status port)".to_owned()
            }
            Some(listens) => {
                let places: Vec<String> = listens.iter().take(MAX_SHOWN).map(SocketAddr::to_string).collect();
                let more = if listens.len() > MAX_SHOWN { " ..." } else { "" };
                format!("listening on {}{more}", places.join(" "))
            }
        }
    }
}

/// What asking takes.
#[derive(Clone, Copy)]
struct ProbeContext<'a> {
    kinds: &'a [&'static Kind],
    fetcher: &'a HttpClient,
    now: &'a Now,
}

/// Reads `proc` on a thread of its own, since a media server has many open files.
async fn look(proc: &Path, kinds: &[&'static Kind]) -> (HashMap<u64, SocketAddr>, Vec<Program>) {
    let (proc, kinds) = (proc.to_owned(), kinds.to_vec());
    let job = move || {
        let sockets = process::listening(&proc);
        let programs = process::programs(&proc, &sockets, |name| kinds.iter().any(|kind| is_of(name, kind)));
        (sockets, programs)
    };
    // It fails only when the runtime is going down.
    tokio::task::spawn_blocking(job).await.unwrap_or_default()
}

fn is_of(process: &str, kind: &Kind) -> bool {
    let same = |name: &&str| name.bytes().take(COMM_BYTES).eq(process.bytes());
    kind.intake == Intake::Poll && kind.processes.iter().any(same)
}

async fn ask(
    program: &Program,
    kind: &'static Kind,
    sockets: &HashMap<u64, SocketAddr>,
    asking: ProbeContext<'_>,
) -> FoundServer {
    let mut server = FoundServer {
        kind: kind.name,
        how_to_enable: kind.how_to_enable,
        process: program.name.clone(),
        pids: program.pids.clone(),
        listens: program.listens.clone(),
        answer: None,
        tried: 0,
        failure: None,
    };
    let (mut weight, mut mute) = (0, None);
    for (place, url) in candidates(program, kind, sockets) {
        if mute == Some(place) {
            continue;
        }
        server.tried += 1;
        let settings = SourceSettings {
            kind: kind.name.to_owned(),
            url: Some(url.clone()),
            timeout: Some(TRY_TIMEOUT),
            ..SourceSettings::default()
        };
        let tried = match Source::new(&settings, asking.kinds) {
            Ok(source) => try_once(&Arc::new(source), asking.fetcher, asking.now).await,
            Err(error) => {
                // It cannot be asked without settings of its own, at no URL.
                server.failure = Some(error.to_string());
                return server;
            }
        };
        match tried {
            Ok(summary) => {
                server.answer = Some(Answer { name: String::new(), url, summary });
                server.failure = None;
                return server;
            }
            Err(error) => {
                let tells = telling(error.reason());
                if tells > weight {
                    weight = tells;
                    server.failure = Some(error.to_string());
                }
                // What does not speak HTTP is not asked for its other pages.
                mute = (tells == SPEAKS_NOT).then_some(place);
            }
        }
    }
    server
}

/// How much a failure tells of what is wrong with a server that should answer.
fn telling(reason: &str) -> u8 {
    match reason {
        "refused" => 5,
        "status" => 4,
        "redirect" => 3,
        "malformed" => 2,
        _ => SPEAKS_NOT,
    }
}

/// The URLs to try and where each leads, the usual ones first.
fn candidates(program: &Program, kind: &Kind, sockets: &HashMap<u64, SocketAddr>) -> Vec<(SocketAddr, String)> {
    let default = Url::parse(kind.default_url).ok();
    let default_port = default.as_ref().and_then(Url::port_or_known_default);
    let default_path = default.as_ref().map_or("", Url::path).trim_end_matches('/');
    let mut paths = vec![default_path];
    paths.extend(kind.status_paths.iter().copied().filter(|path| *path != default_path));

    // Where the program's own sockets are hidden, only the ports usual for status pages are tried, not all of the
    // host's.
    let usual = |at: &SocketAddr| Some(at.port()) == default_port || USUAL_PORTS.contains(&at.port());
    let hidden = || sockets.values().copied().filter(usual).collect();
    let mut places: Vec<SocketAddr> = program.listens.clone().unwrap_or_else(hidden).into_iter().collect();
    places.retain(|at| !NO_HTTP_PORTS.contains(&at.port()));
    places.sort_by_key(|at| (Some(at.port()) != default_port, *at));

    let mut urls: Vec<(SocketAddr, String)> = Vec::new();
    for place in places.into_iter().flat_map(reachable) {
        for path in &paths {
            let url = format!("http://{place}{path}");
            if !urls.contains(&(place, url.clone())) && urls.len() < MAX_TRIES {
                urls.push((place, url));
            }
        }
    }
    urls
}

/// Addresses by which a socket that listens there is reached from this host.
fn reachable(at: SocketAddr) -> Vec<SocketAddr> {
    let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at.port());
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![v4, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), at.port())],
        _ => vec![at],
    }
}

/// A text of others as it may stand in a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN_CHARS).collect()
}

/// Bytes of a process's name that the kernel keeps (`TASK_COMM_LEN` less the final zero).
const COMM_BYTES: usize = 15;
/// The weight of a failure that is no HTTP answer at all.
const SPEAKS_NOT: u8 = 1;
/// URLs asked of one program.
pub(super) const MAX_TRIES: usize = 48;
/// How long one of them may take: everything is on this host.
const TRY_TIMEOUT: Duration = Duration::from_millis(500);
/// Ports tried where a program's own are hidden.
const USUAL_PORTS: [u16; 6] = [80, 1985, 8000, 8080, 8081, 8088];
/// Ports that are never asked by HTTP: RTMP, RTMPS and TLS, which would only log an error.
const NO_HTTP_PORTS: [u16; 3] = [443, 1935, 1936];
/// Processes and places shown of a program.
const MAX_SHOWN: usize = 8;
/// Characters shown of a text of others.
const MAX_SHOWN_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::intake::testing::{Does, KINDS, ticking};

    #[derive(serde::Deserialize)]
    struct File {
        sources: Vec<SourceSettings>,
    }

    /// A `/proc` with one process that listens on these ports.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new(process: &str, ports: &[u16], readable: bool) -> Self {
            let host = Self(tempfile::tempdir().expect("a folder"));
            let mut table = String::from("  sl  local_address ...\n");
            let word = u32::from_ne_bytes([127, 0, 0, 1]);
            for (number, port) in ports.iter().enumerate() {
                writeln!(table, " {number}: {word:08X}:{port:04X} 0:0 0A 0:0 0:0 0 0 0 {} 1", 500 + number)
                    .expect("written");
            }
            host.write("net/tcp", &table);
            host.write("12/comm", &format!("{process}\n"));
            if readable {
                let folder = host.path().join("12/fd");
                std::fs::create_dir_all(&folder).expect("made");
                for number in 0..ports.len() {
                    let target = format!("socket:[{}]", 500 + number);
                    std::os::unix::fs::symlink(target, folder.join(number.to_string())).expect("linked");
                }
            }
            host
        }

        fn path(&self) -> PathBuf {
            self.0.path().to_owned()
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }

        async fn discover(&self) -> Discovery {
            discover(&self.path(), KINDS, &HttpClient::new().expect("a client"), &ticking()).await
        }
    }

    /// A real HTTP server with a status page at `path`.
    async fn serving(path: &str, says: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let routes = axum::Router::new().route(path, axum::routing::get(move || async move { says }));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        port
    }

    #[tokio::test]
    async fn a_server_that_answers_becomes_a_source() {
        let (other, status) = (serving("/", "<html>").await, serving("/stat", "live/a 3\nlive/b 4").await);
        let found = Host::new("fake-server", &[other, status, 1935], true).discover().await;
        let answer = found.servers[0].answer.as_ref().expect("an answer");
        assert_eq!((answer.summary.streams, answer.summary.viewers), (2, Some(7)));
        let text = found.to_toml();
        assert!(text.starts_with("# fake: process \"fake-server\" (12), listening on 127.0.0.1:"), "{text}");
        assert!(text.contains("# It told: streams: 2, viewers: 7, answered within "), "{text}");

        let read: File = toml::from_str(&text).expect("TOML");
        let source = Source::new(&read.sources[0], KINDS).expect("good");
        assert_eq!(source.shown_url(), format!("http://127.0.0.1:{status}/stat"));
        assert_eq!(Source::all(&found.sources(), KINDS).expect("good").len(), 1);
    }

    #[tokio::test]
    async fn a_silent_server_is_told_with_what_to_do() {
        let port = serving("/", "hello").await;
        let found = Host::new("srs", &[port], true).discover().await;
        assert!(found.sources().is_empty());
        let text = found.to_toml();
        assert!(text.contains("# Nearest to an answer: asking http://127.0.0.1:"), "{text}");
        assert!(text.contains("http_api { enabled on; listen 1985; }"), "{text}");
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    }

    #[tokio::test]
    async fn what_does_not_speak_http_is_asked_once() {
        let server = crate::intake::testing::Server::start(|_, _| Does::Sends(b"\x03no HTTP".to_vec())).await;
        let sockets = HashMap::new();
        let listens = Some(BTreeSet::from([SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.port)]));
        let program = Program { name: "srs".to_owned(), pids: vec![1], listens };
        let (fetcher, now) = (HttpClient::new().expect("a client"), ticking());
        let asking = ProbeContext { kinds: KINDS, fetcher: &fetcher, now: &now };
        let kind = KINDS.iter().find(|kind| kind.name == "srs").expect("a kind with two paths");
        assert_eq!(candidates(&program, kind, &sockets).len(), 2);
        let found = ask(&program, kind, &sockets, asking).await;
        assert_eq!((found.tried, server.asked.load(std::sync::atomic::Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn hidden_ports_are_told_and_only_usual_ones_tried() {
        let port = serving("/stat", "live/a 3").await;
        let found = Host::new("fake-server", &[port], false).discover().await;
        assert_eq!((found.servers[0].tried, found.servers[0].listens.as_ref()), (0, None));
        assert!(found.to_toml().contains("run as root to see them"), "{}", found.to_toml());
    }

    #[tokio::test]
    async fn a_host_without_servers_says_so() {
        let found = Host::new("bash", &[], true).discover().await;
        assert_eq!(found, Discovery::default());
        assert!(found.to_toml().starts_with("# No media server was found on this host."));
    }

    #[test]
    fn sources_of_one_kind_get_names_of_their_own() {
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

    #[test]
    fn usual_places_are_tried_first_and_rtmp_never() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let listens = Some(BTreeSet::from([at("0.0.0.0:80"), at("[::]:9"), at("10.0.0.5:8080"), at("0.0.0.0:1935")]));
        let program = Program { name: "fake-server".to_owned(), pids: vec![1], listens };
        let urls = candidates(&program, KINDS[0], &HashMap::new());
        let urls: Vec<String> = urls.into_iter().map(|(_, url)| url).collect();
        let expected =
            ["http://127.0.0.1:9/stat", "http://[::1]:9/stat", "http://127.0.0.1:80/stat", "http://10.0.0.5:8080/stat"];
        assert_eq!(urls, expected);
    }
}
