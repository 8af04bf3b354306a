//! Searches this host for media servers by requesting their status interfaces. A server is found when its probe
//! understood a response; a program that only has the name of one is reported with how to enable its interface.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use liveqos_probes::probe::{Intake, Kind};

use super::candidates::candidates;
use super::process::{self, Program};
use super::report::{Answer, Discovery, FoundServer};
use crate::intake::poll::{FetchError, HttpClient, Now, try_once};
use crate::intake::source::{Source, SourceSettings};

/// A source for each media server of this host that answers.
pub(crate) async fn sources(now: &Now) -> Vec<SourceSettings> {
    match search_this_host(now).await {
        Ok(found) => found.sources(),
        Err(error) => {
            tracing::warn!("searching for media servers on this host: {error}");
            Vec::new()
        }
    }
}

/// A configuration in TOML for the media servers of this host, as `liveqos discover` prints it.
pub(crate) async fn report(now: &Now) -> String {
    match search_this_host(now).await {
        Ok(found) => found.to_toml(),
        Err(error) => format!("# Searching for media servers on this host: {error}\n"),
    }
}

async fn search_this_host(now: &Now) -> Result<Discovery, FetchError> {
    Ok(discover(Path::new("/proc"), liveqos_probes::KINDS, &HttpClient::new()?, now).await)
}

/// Searches `proc` (in production `/proc`) for programs of `kinds` and requests the candidate URLs of each on the
/// loopback, one at a time, each for at most half a second, at most [`super::candidates::MAX_TRIES`] per program.
pub(super) async fn discover(proc: &Path, kinds: &[&'static Kind], client: &HttpClient, now: &Now) -> Discovery {
    let (sockets, programs) = programs_of(proc, kinds).await;
    let mut found = Discovery::default();
    for program in programs {
        for kind in kinds.iter().filter(|kind| is_of(&program.name, kind)) {
            let mut server = try_candidates(&program, kind, &sockets, ProbeContext { kinds, client, now }).await;
            if let Some(answer) = &mut server.answer {
                // The same interface found twice (at a master and a worker with other sockets) is one source.
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

/// What a request needs.
#[derive(Clone, Copy)]
struct ProbeContext<'a> {
    kinds: &'a [&'static Kind],
    client: &'a HttpClient,
    now: &'a Now,
}

/// Reads `proc` on a blocking thread, since a media server has many open files.
async fn programs_of(proc: &Path, kinds: &[&'static Kind]) -> (HashMap<u64, SocketAddr>, Vec<Program>) {
    let (proc, kinds) = (proc.to_owned(), kinds.to_vec());
    let job = move || {
        let sockets = process::listening(&proc);
        let programs = process::programs(&proc, &sockets, |name| kinds.iter().any(|kind| is_of(name, kind)));
        (sockets, programs)
    };
    // Fails only when the runtime is shutting down.
    tokio::task::spawn_blocking(job).await.unwrap_or_default()
}

fn is_of(process: &str, kind: &Kind) -> bool {
    let same = |name: &&str| name.bytes().take(COMM_BYTES).eq(process.bytes());
    kind.intake == Intake::Poll && kind.processes.iter().any(same)
}

async fn try_candidates(
    program: &Program,
    kind: &'static Kind,
    sockets: &HashMap<u64, SocketAddr>,
    context: ProbeContext<'_>,
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
    let (mut weight, mut without_http) = (0, None);
    for (address, url) in candidates(program, kind, sockets) {
        if without_http == Some(address) {
            continue;
        }
        server.tried += 1;
        let settings = SourceSettings {
            kind: kind.name.to_owned(),
            url: Some(url.clone()),
            timeout: Some(TRY_TIMEOUT),
            ..SourceSettings::default()
        };
        let tried = match Source::new(&settings, context.kinds) {
            Ok(source) => try_once(&Arc::new(source), context.client, context.now).await,
            Err(error) => {
                // The kind needs settings of its own, so no URL can be tried.
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
                let informative = weight_of(error.reason());
                if informative > weight {
                    weight = informative;
                    server.failure = Some(error.to_string());
                }
                // An address without HTTP gets no further requests.
                without_http = (informative == NO_HTTP).then_some(address);
            }
        }
    }
    server
}

/// How much a failure reveals about a server that should answer.
fn weight_of(reason: &str) -> u8 {
    match reason {
        "refused" => 5,
        "status" => 4,
        "redirect" => 3,
        "malformed" => 2,
        _ => NO_HTTP,
    }
}

/// Bytes of a process name that the kernel keeps (`TASK_COMM_LEN` without the final zero).
const COMM_BYTES: usize = 15;
/// The weight of a failure without any HTTP response.
const NO_HTTP: u8 = 1;
/// Time limit of one request: everything is on this host.
const TRY_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::net::Ipv4Addr;
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
    async fn serving(path: &str, body: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let routes = axum::Router::new().route(path, axum::routing::get(move || async move { body }));
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
        assert!(text.contains("# Status: streams: 2, viewers: 7, answered within "), "{text}");

        let read: File = toml::from_str(&text).expect("TOML");
        let source = Source::new(&read.sources[0], KINDS).expect("good");
        assert_eq!(source.shown_url(), format!("http://127.0.0.1:{status}/stat"));
        assert_eq!(Source::all(&found.sources(), KINDS).expect("good").len(), 1);
    }

    #[tokio::test]
    async fn a_server_without_status_is_reported_with_how_to_enable_it() {
        let port = serving("/", "hello").await;
        let found = Host::new("srs", &[port], true).discover().await;
        assert!(found.sources().is_empty());
        let text = found.to_toml();
        assert!(text.contains("# Most informative failure: requesting http://127.0.0.1:"), "{text}");
        assert!(text.contains("http_api { enabled on; listen 1985; }"), "{text}");
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    }

    #[tokio::test]
    async fn a_port_without_http_gets_one_request() {
        let server = crate::intake::testing::Server::start(|_, _| Does::Sends(b"\x03no HTTP".to_vec())).await;
        let sockets = HashMap::new();
        let listens = Some(BTreeSet::from([SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.port)]));
        let program = Program { name: "srs".to_owned(), pids: vec![1], listens };
        let (client, now) = (HttpClient::new().expect("a client"), ticking());
        let context = ProbeContext { kinds: KINDS, client: &client, now: &now };
        let kind = KINDS.iter().find(|kind| kind.name == "srs").expect("a kind with two paths");
        assert_eq!(candidates(&program, kind, &sockets).len(), 2);
        let found = try_candidates(&program, kind, &sockets, context).await;
        assert_eq!((found.tried, server.asked.load(std::sync::atomic::Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn hidden_ports_are_reported_and_only_usual_ones_tried() {
        let port = serving("/stat", "live/a 3").await;
        let found = Host::new("fake-server", &[port], false).discover().await;
        assert_eq!((found.servers[0].tried, found.servers[0].listens.as_ref()), (0, None));
        assert!(found.to_toml().contains("run as root to see them"), "{}", found.to_toml());
    }

    #[tokio::test]
    async fn a_host_without_servers_is_reported() {
        let found = Host::new("bash", &[], true).discover().await;
        assert_eq!(found, Discovery::default());
        assert!(found.to_toml().starts_with("# No media server was found on this host."));
    }
}
