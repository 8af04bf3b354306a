//! One round: what a probe asks, what the server answers, what the probe reads. Decides what ends a round early;
//! refuses more than [`MAX_ROUND`] questions, and lets neither a panic nor a long reading of a probe reach the other
//! tasks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use liveqos_core::model::{Observation, Timestamp};
use liveqos_probes::probe::{MAX_ROUND, Probe, ProbeError, Reply, Request, SettingsError};
use tokio::time::Instant;

use super::http_client::{FetchError, HttpClient};
use crate::intake::source::Source;

/// Gives the wall clock's time; production passes the process's one clock, tests a clock of theirs.
pub(crate) type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Asks one source, round after round, with the one probe that remembers between them.
pub(crate) struct SourcePoller {
    source: Arc<Source>,
    fetcher: HttpClient,
    now: Now,
    /// `None` after the probe panicked: the next round begins with a new one.
    probe: Option<Box<dyn Probe>>,
}

/// What a round gave.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What was read, also where something failed.
    pub observations: Vec<Observation>,
    /// What failed, in order; a good round has none.
    pub failures: Vec<RoundError>,
    /// Questions that were sent.
    pub requests: usize,
    /// How long the server was busy with them, as far as can be seen from here.
    pub asked: Duration,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    /// No usable answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An answer that the probe could not read.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The probe could not be built.
    #[error("building the probe: {0}")]
    Settings(#[from] SettingsError),
    /// The probe wanted to ask on and on.
    #[error("reading: the server has more than {MAX_ROUND} pages")]
    TooManyRequests,
    /// The round's own time was over before all was asked.
    #[error("asking: the round took longer than {0:?}")]
    TooLong(Duration),
    /// A defect of the probe.
    #[error("reading: the probe panicked, which is a defect of liveqos; please report it with the server's version")]
    Panicked,
}

impl RoundError {
    /// The value of the `reason` label.
    #[must_use]
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::Probe(error) => error.reason(),
            Self::Settings(_) => "settings",
            Self::TooManyRequests => "too_many_requests",
            Self::TooLong(_) => "timeout",
            Self::Panicked => "panic",
        }
    }

    /// Whether the server did answer, so that asking it more is worth its time.
    const fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Fetch(FetchError::Status { .. } | FetchError::Redirect { .. } | FetchError::TooLarge { .. })
                | Self::Probe(_)
        )
    }
}

impl SourcePoller {
    pub(crate) fn new(source: Arc<Source>, fetcher: HttpClient, now: Now) -> Self {
        Self { source, fetcher, now, probe: None }
    }

    /// Asks everything once. What was read stands, whatever fails after it.
    pub(crate) async fn round(&mut self) -> Round {
        let mut round = Round::default();
        if let Err(error) = self.fill(&mut round).await {
            round.failures.push(error);
        }
        round
    }

    /// The error that ended the round early, where one did.
    async fn fill(&mut self, round: &mut Round) -> Result<(), RoundError> {
        let allowed = self.source.timeout.saturating_mul(ROUND_TIMEOUTS);
        let deadline = Instant::now() + allowed;
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the path is not general enough over the probe's lifetime"
        )]
        let mut requests: VecDeque<Request> = self.with_probe(|probe| probe.ask()).await?.into();
        while let Some(request) = requests.pop_front() {
            if round.requests == MAX_ROUND {
                return Err(RoundError::TooManyRequests);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RoundError::TooLong(allowed));
            }
            round.requests += 1;
            let (asked_at, sent) = ((self.now)(), Instant::now());
            let answer = self.fetcher.get(&self.source, &request.path, left.min(self.source.timeout)).await;
            round.asked += sent.elapsed();
            let read = match answer {
                Ok(body) => self.read(request.tag, asked_at, body, round).await,
                Err(error) => Err(error.into()),
            };
            match read {
                Ok(more) => requests.extend(more),
                Err(error) if error.is_answer() => round.failures.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read(
        &mut self,
        tag: u32,
        asked_at: Timestamp,
        body: Vec<u8>,
        round: &mut Round,
    ) -> Result<Vec<Request>, RoundError> {
        let source = self.source.name.clone();
        let read = move |probe: &mut (dyn Probe + 'static)| {
            let mut out = Vec::new();
            let more = probe.read(&Reply { source: &source, tag, asked_at, body: &body }, &mut out);
            (more, out)
        };
        let (more, out) = self.with_probe(read).await?;
        round.observations.extend(out);
        Ok(more?)
    }

    /// Runs `job` where it may take its time and panic: on a thread of its own, as reading 32 MiB takes long enough for
    /// the other sources to notice.
    async fn with_probe<T, F>(&mut self, job: F) -> Result<T, RoundError>
    where
        T: Send + 'static,
        F: FnOnce(&mut (dyn Probe + 'static)) -> T + Send + 'static,
    {
        let mut probe = match self.probe.take() {
            Some(probe) => probe,
            None => self.source.probe()?,
        };
        let done = tokio::task::spawn_blocking(move || (job(probe.as_mut()), probe)).await;
        let (result, probe) = done.map_err(|_| RoundError::Panicked)?;
        self.probe = Some(probe);
        Ok(result)
    }
}

/// A round may take so many times as long as one answer.
pub(crate) const ROUND_TIMEOUTS: u32 = 5;

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::intake::observations::stream_count;
    use crate::intake::poll::trial::try_once;
    use crate::intake::testing::{Does, KINDS, Server, settings, ticking};

    fn fetcher() -> HttpClient {
        HttpClient::new().expect("a client")
    }

    async fn round_of(server: &Server, more: &str) -> Round {
        SourcePoller::new(server.source(more), fetcher().with_max_body(1_000_000), ticking()).round().await
    }

    /// The reason and text of the only failure against a server that always does `what`, and how often it was asked.
    async fn failure(what: Does, more: &str) -> (&'static str, String, usize) {
        let server = Server::start(move |_, _| what.clone()).await;
        let round = round_of(&server, more).await;
        assert_eq!(round.failures.len(), 1, "{:?}", round.failures);
        let error = &round.failures[0];
        (error.reason(), error.to_string(), server.asked.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_good_server_is_read_with_all_its_pages() {
        let server = Server::start(|path, _| match path {
            "/" => Does::Says(200, "live/a 3\nmore /next"),
            "/1" => Does::Says(200, "live/b 4"),
            "/next" => Does::Says(200, "live/a 5"),
            _ => Does::Says(404, ""),
        })
        .await;
        let round = round_of(&server, "pages = 2").await;
        assert!(round.failures.is_empty(), "{:?}", round.failures);
        let at: Vec<u64> = round.observations.iter().map(|observation| observation.at.millis()).collect();
        assert_eq!(at, [1_000_000, 1_000_001, 1_000_002], "each its own question's instant");
        let summary = try_once(&server.source("pages = 2"), &fetcher(), &ticking()).await.expect("good");
        assert_eq!((summary.requests, summary.streams, summary.viewers), (3, 2, Some(9)));
        assert!(summary.to_string().starts_with("streams: 2, viewers: 9, answered within "), "{summary}");
    }

    #[tokio::test]
    async fn bad_servers_have_a_reason_and_a_bounded_cost() {
        let short = "timeout = '100ms'";
        for (what, more, reason, says) in [
            (Does::Hangs, short, "timeout", "/: no whole answer within 100ms"),
            (Does::Drips, short, "timeout", "no whole answer"),
            (Does::Floods, "", "too_large", "answer of more than 1000000 bytes"),
            (
                Does::Sends(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec()),
                "",
                "too_large",
                "more than",
            ),
            (
                Does::Sends(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nlive/a 3".to_vec()),
                "",
                "broken",
                "broken answer: ",
            ),
            (Does::Sends(b"\x03rubbish\r\n\r\n".to_vec()), "", "broken", "broken answer: "),
            (Does::Sends(Vec::new()), "", "broken", "broken answer: "),
            (Does::Says(500, "live/a 3"), "", "status", "status 500"),
            (Does::Says(401, ""), "", "status", "status 401; set username and password_file, or token_file"),
            (Does::Says(200, "rubbish"), "", "malformed", "reading the fake's lines: a line without blank"),
            (Does::Says(200, "panic"), "", "panic", "the probe panicked"),
        ] {
            let (got, text, asked) = failure(what, more).await;
            assert_eq!((got, asked), (reason, 1), "{text}");
            assert!(text.contains(says), "{text}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_a_connect_error() {
        let source = {
            let server = Server::start(|_, _| Does::Hangs).await;
            server.source("")
        };
        // The port is free again once the server's task is gone.
        let error = loop {
            match try_once(&source, &fetcher(), &ticking()).await {
                Err(RoundError::Fetch(error @ FetchError::Connect { .. })) => break error,
                _ => tokio::task::yield_now().await,
            }
        };
        assert!(error.to_string().contains("connecting: "), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_is_a_tls_error() {
        use tokio::io::AsyncWriteExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("asked");
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("sent");
            std::future::pending::<()>().await;
        });
        let text = format!("kind = 'fake'\nurl = 'https://127.0.0.1:{port}/'");
        let source = Arc::new(Source::new(&settings(&text), KINDS).expect("good"));
        let error = try_once(&source, &fetcher(), &ticking()).await.expect_err("no TLS");
        assert_eq!(error.reason(), "tls", "{error}");
        server.abort();
    }

    #[tokio::test]
    async fn redirects_stay_on_the_server() {
        let to = |place: &str| {
            Does::Sends(format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n").into())
        };
        let (same, endless) = (to("/real"), to("/"));
        let server =
            Server::start(move |path, _| if path == "/" { same.clone() } else { Does::Says(200, "live/a 3") }).await;
        let round = round_of(&server, "").await;
        assert!(round.failures.is_empty() && round.observations.len() == 1, "{round:?}");

        let elsewhere = Server::start(|_, _| Does::Says(200, "live/a 3")).await;
        let (reason, text, _) = failure(to(&format!("{}?token=x", elsewhere.url())), "").await;
        assert_eq!(reason, "redirect");
        assert!(
            text.contains("another server; if that is right, make it the source's url") && !text.contains("token"),
            "{text}"
        );
        assert_eq!(elsewhere.asked.load(Ordering::SeqCst), 0, "it was never asked");

        let (reason, text, asked) = failure(endless, "").await;
        assert_eq!((reason, asked), ("redirect", 4), "{text}");
    }

    #[tokio::test]
    async fn what_was_read_before_a_failure_stands() {
        let server = Server::start(|path, _| match path {
            "/" => Does::Says(200, "live/a 3\nrubbish"),
            "/1" => Does::Says(404, ""),
            _ => Does::Says(200, "live/b 4"),
        })
        .await;
        let round = round_of(&server, "pages = 3").await;
        let reasons: Vec<&str> = round.failures.iter().map(RoundError::reason).collect();
        assert_eq!(reasons, ["malformed", "status"]);
        assert_eq!(stream_count(&round.observations), 2);
    }

    #[tokio::test]
    async fn a_server_of_endless_pages_ends_the_round() {
        let (reason, _, asked) = failure(Does::Says(200, "more /again"), "").await;
        assert_eq!((reason, asked), ("too_many_requests", MAX_ROUND));
    }

    #[tokio::test]
    async fn many_slow_pages_end_the_round() {
        let (reason, text, asked) =
            failure(Does::Late(Duration::from_millis(80), "more /again"), "timeout = '100ms'").await;
        assert_eq!(reason, "timeout", "{text}");
        assert!(asked < MAX_ROUND, "{asked}");
    }

    #[tokio::test]
    async fn a_probe_that_panicked_is_replaced() {
        let server = Server::start(|_, number| Does::Says(200, if number == 0 { "panic" } else { "live/a 3" })).await;
        let mut asker = SourcePoller::new(server.source(""), fetcher(), ticking());
        assert_eq!(asker.round().await.failures.len(), 1);
        let round = asker.round().await;
        assert_eq!((round.failures.len(), round.observations.len()), (0, 1));
    }

    #[tokio::test]
    async fn the_login_is_shown() {
        let server = Server::start(|_, _| Does::Says(200, "")).await;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "open sesame\n").expect("written");
        let path = file.path().display();
        for (more, header) in [
            (format!("username = 'u'\npassword_file = '{path}'"), "authorization: Basic dTpvcGVuIHNlc2FtZQ=="),
            (format!("token_file = '{path}'"), "authorization: Bearer open sesame"),
        ] {
            assert!(round_of(&server, &more).await.failures.is_empty());
            let head = server.head.lock().expect("whole").clone();
            assert!(head.contains(header) && head.contains("user-agent: liveqos/"), "{head}");
        }
    }

    #[tokio::test]
    async fn a_packed_answer_is_unpacked_and_its_limit_is_that_of_the_unpacked() {
        use std::io::Write as _;
        let packed = |body: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body).expect("packed");
            let packed = encoder.finish().expect("packed");
            let mut answer =
                format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", packed.len())
                    .into_bytes();
            answer.extend(packed);
            answer
        };
        let good = packed(b"live/a 3");
        let server = Server::start(move |_, _| Does::Sends(good.clone())).await;
        assert_eq!(round_of(&server, "").await.observations.len(), 1);
        let (reason, text, _) = failure(Does::Sends(packed(&vec![b'\n'; 2_000_000])), "").await;
        assert_eq!(reason, "too_large", "{text}");
    }
}
