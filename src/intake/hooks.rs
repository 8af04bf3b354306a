//! Receives the hooks that media servers post to `/v1/hooks/{server}`. A configured server is always answered with
//! success, at once and from memory, because it would drop the class when its hook fails; only an unknown server gets
//! an error.
//!
//! A hook only describes a stream or reports its end. Each source therefore has a second probe for its hooks, which
//! shares nothing with the probe of its poll task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use liveqos_core::model::Observation;
use liveqos_probes::probe::{Hook, Probe, SettingsError};

use super::observations::{Observations, deliver};
use super::poll::Now;
use super::source::{Source, SourceEntry, SourceTable};

/// Receives hooks for all configured sources.
pub(crate) struct HookIntake {
    servers: Vec<Server>,
    now: Now,
    out: Observations,
}

struct Server {
    source: Arc<Source>,
    entry: Arc<SourceEntry>,
    probe: Mutex<Box<dyn Probe>>,
}

/// The answer to a media server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HookAnswer {
    /// 200, or 404 for a server that is not configured.
    pub status: u16,
    /// The content type of `body`.
    pub content_type: &'static str,
    /// The body that this kind of server understands as success, or an error in JSON.
    pub body: String,
}

impl HookIntake {
    /// An intake for `sources`, which counts in `table` and delivers into `out`.
    ///
    /// # Errors
    /// [`SettingsError`]; never for sources that [`Source::new`] accepted.
    pub(crate) fn new(
        sources: &[Arc<Source>],
        table: &SourceTable,
        now: Now,
        out: Observations,
    ) -> Result<Self, SettingsError> {
        let mut servers = Vec::with_capacity(sources.len());
        for source in sources {
            if let Some(entry) = table.entry(&source.name) {
                let probe = Mutex::new(source.probe()?);
                servers.push(Server { source: source.clone(), entry, probe });
            }
        }
        Ok(Self { servers, now, out })
    }

    /// Reads one hook that `server` posted with `query` and returns the answer. `server` is a source's name, otherwise
    /// the kind of the first such source. Works in memory alone; a body larger than [`MAX_HOOK_BODY`] is counted and
    /// not read.
    #[must_use]
    pub(crate) fn take(&self, server: &str, query: &str, body: &[u8]) -> HookAnswer {
        let Some(server) = self.server(server) else {
            return unknown_server();
        };
        let outcome = if body.len() > MAX_HOOK_BODY {
            Err(("too_large", format!("reading a hook: body of more than {MAX_HOOK_BODY} bytes")))
        } else {
            self.read(server, query, body)
        };
        server.count((self.now)(), outcome);
        server.success()
    }

    /// As [`Self::take`] for a body that is still arriving. A body that breaks off, is too long or too slow is counted,
    /// and answered with success as well.
    pub(crate) async fn receive(&self, server: &str, query: &str, body: Body) -> HookAnswer {
        match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_HOOK_BODY)).await {
            Ok(Ok(body)) => self.take(server, query, &body),
            Ok(Err(_)) => {
                self.incomplete(server, "too_large", "reading a hook: the body broke off or is longer than 64 KiB")
            }
            Err(_) => self.incomplete(server, "timeout", "reading a hook: the body did not arrive in time"),
        }
    }

    /// Counts a body that did not arrive completely and returns the answer.
    fn incomplete(&self, server: &str, reason: &'static str, message: &str) -> HookAnswer {
        let Some(server) = self.server(server) else {
            return unknown_server();
        };
        server.count((self.now)(), Err((reason, message.to_owned())));
        server.success()
    }

    /// Returns the number of observations read. Those from before an error are kept.
    fn read(&self, server: &Server, query: &str, body: &[u8]) -> Result<usize, (&'static str, String)> {
        let mut out: Vec<Observation> = Vec::new();
        let hook = Hook { source: &server.source.name, at: (self.now)(), query, body };
        let read = {
            let mut probe = server.probe.lock().unwrap_or_else(PoisonError::into_inner);
            let read = catch_unwind(AssertUnwindSafe(|| probe.read_hook(&hook, &mut out)));
            if read.is_err()
                && let Ok(fresh) = server.source.probe()
            {
                *probe = fresh;
            }
            read
        };
        let count = out.len();
        deliver(out, &server.entry, &self.out);
        match read {
            Ok(Ok(())) => Ok(count),
            Ok(Err(error)) => Err((error.reason(), error.to_string())),
            Err(_) => Err(("panic", "reading a hook: the probe panicked, which is a defect of liveqos".to_owned())),
        }
    }

    fn server(&self, name: &str) -> Option<&Server> {
        let named = self.servers.iter().find(|server| &*server.source.name == name);
        named.or_else(|| self.servers.iter().find(|server| server.source.kind.name == name))
    }
}

impl Server {
    fn count(&self, at: liveqos_core::model::Timestamp, outcome: Result<usize, (&'static str, String)>) {
        if let Err((reason, message)) = &outcome {
            tracing::debug!(source = %self.source.name, reason, "{message}");
        }
        self.entry.hook(at, outcome);
    }

    fn success(&self) -> HookAnswer {
        HookAnswer { status: 200, content_type: "text/plain", body: self.source.kind.hook_success.to_owned() }
    }
}

impl IntoResponse for HookAnswer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        (status, [(header::CONTENT_TYPE, self.content_type)], self.body).into_response()
    }
}

fn unknown_server() -> HookAnswer {
    let message = "no source of this name or kind is configured; add it to [[sources]]";
    let body =
        serde_json::json!({"error": {"code": "unknown_server", "message": message, "field": "server"}}).to_string();
    HookAnswer { status: 404, content_type: "application/json", body }
}

/// Largest hook body that is read, in bytes; the hooks of all supported servers are smaller than 4 KiB.
pub(super) const MAX_HOOK_BODY: usize = 64 * 1024;
/// How long a body may take to arrive before the hook is answered without it.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use axum::extract::{Path, RawQuery};
    use liveqos_core::model::Timestamp;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;

    use super::*;
    use crate::intake::source::{SourceSettings, SourceStatus};
    use crate::intake::testing::{KINDS, settings, ticking};

    struct Harness {
        intake: Arc<HookIntake>,
        table: SourceTable,
        seen: mpsc::Receiver<Vec<Observation>>,
    }

    fn harness() -> Harness {
        let tables: [SourceSettings; 3] =
            [settings("kind = 'srs'\nname = 'edge'"), settings("kind = 'fake'"), settings("kind = 'pushed'")];
        let sources = Source::all(&tables, KINDS).expect("good");
        let table = SourceTable::new(&sources, None);
        let (out, seen) = mpsc::channel(1);
        let intake = Arc::new(HookIntake::new(&sources, &table, ticking(), out).expect("good"));
        Harness { intake, table, seen }
    }

    impl Harness {
        fn status(&self, number: usize) -> SourceStatus {
            self.table.snapshot(Timestamp::from_secs(2_000)).remove(number)
        }
    }

    #[test]
    fn a_configured_server_is_answered_with_success() {
        let mut harness = harness();
        for (server, body) in [("edge", "0"), ("srs", "0"), ("fake", "")] {
            let answer = harness.intake.take(server, "", b"live/a 3");
            assert_eq!((answer.status, answer.body.as_str()), (200, body), "{server}");
        }
        let seen = harness.seen.try_recv().expect("observations");
        assert_eq!((&*seen[0].source, seen.len()), ("edge", 1));
        assert_eq!((harness.status(0).hooks, harness.status(0).observations, harness.status(0).shed), (2, 2, 1));
    }

    #[test]
    fn a_bad_hook_is_counted_and_answered_with_success() {
        let harness = harness();
        for (body, reason) in
            [(&b"rubbish"[..], "malformed"), (b"panic", "panic"), (&vec![b'a'; MAX_HOOK_BODY + 1], "too_large")]
        {
            assert_eq!(harness.intake.take("srs", "", body).status, 200, "{reason}");
            let status = harness.status(0);
            assert_eq!(status.failures.get(reason), Some(&1), "{status:?}");
            assert_eq!(status.last_error.map(|error| error.reason), Some(reason));
        }
        assert_eq!(harness.intake.take("srs", "", b"live/a 3").status, 200);
        assert_eq!(
            (harness.status(0).hooks, harness.status(0).observations),
            (4, 1),
            "hooks are read again after the panic"
        );
    }

    #[test]
    fn an_unknown_server_gets_an_error() {
        let answer = harness().intake.take("nobody", "", b"");
        assert_eq!((answer.status, answer.content_type), (404, "application/json"));
        let json: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(json["error"]["code"], "unknown_server");
    }

    /// The response of a real HTTP server to these bytes; with `end` the client then closes its side.
    async fn response(harness: &Harness, request: &[u8], end: bool) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut stream =
            tokio::net::TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let intake = harness.intake.clone();
        let receive = async move |Path(server): Path<String>, RawQuery(query): RawQuery, body: Body| {
            intake.receive(&server, &query.unwrap_or_default(), body).await
        };
        let routes = axum::Router::new().route("/v1/hooks/{server}", axum::routing::any(receive));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await });
        stream.write_all(request).await.expect("sent");
        if end {
            stream.shutdown().await.expect("ended");
        }
        let mut answer = vec![0; 4_096];
        let length = stream.read(&mut answer).await.expect("answered");
        server.abort();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    #[tokio::test]
    async fn hooks_are_received_over_http() {
        let harness = harness();
        let post = b"POST /v1/hooks/srs?x=1 HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\nlive/a 3";
        let answer = response(&harness, post, false).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n0"), "{answer}");
        let answer = response(&harness, b"GET /v1/hooks/fake?app=live HTTP/1.1\r\nhost: h\r\n\r\n", false).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer = response(&harness, b"GET /v1/hooks/other HTTP/1.1\r\nhost: h\r\n\r\n", false).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("unknown_server"), "{answer}");
        let long =
            [&b"POST /v1/hooks/srs HTTP/1.1\r\nhost: h\r\ncontent-length: 70000\r\n\r\n"[..], &vec![b'a'; 70_000]]
                .concat();
        let answer = response(&harness, &long, false).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(harness.status(0).failures.get("too_large"), Some(&1));
    }

    #[tokio::test]
    async fn a_body_that_never_arrives_is_answered_with_success() {
        let harness = harness();
        let half = b"POST /v1/hooks/srs HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\nlive";
        let answer = response(&harness, half, false).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(harness.status(0).failures.get("timeout"), Some(&1));
    }
}
