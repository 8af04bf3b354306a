//! One round: the probe's requests, the server's responses, what the probe reads. Decides what ends a round early: at
//! most [`MAX_ROUND`] requests, and neither a panic nor slow parsing of a probe affects other tasks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use liveqos_core::model::{Observation, Timestamp};
use liveqos_probes::probe::{MAX_ROUND, Probe, ProbeError, Reply, Request, SettingsError};
use tokio::time::Instant;

use super::http_client::{FetchError, HttpClient};
use crate::intake::source::Source;

/// Returns the wall clock's time: the clock of the process in production, a clock of their own in tests.
pub(crate) type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Polls one source, round after round, with one probe that keeps its state between them.
pub(crate) struct SourcePoller {
    source: Arc<Source>,
    client: HttpClient,
    now: Now,
    /// `None` after the probe panicked: the next round begins with a new one.
    probe: Option<Box<dyn Probe>>,
}

/// The result of a round.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What was read, also when something failed.
    pub observations: Vec<Observation>,
    /// The failures in order; a good round has none.
    pub failures: Vec<RoundError>,
    /// Number of requests sent.
    pub requests: usize,
    /// How long the server was busy with them, as seen from here.
    pub busy: Duration,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    /// No usable response.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A response that the probe could not read.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The probe could not be built.
    #[error("building the probe: {0}")]
    Settings(#[from] SettingsError),
    /// The probe had more requests than a round may have.
    #[error("reading: the server has more than {MAX_ROUND} pages")]
    TooManyRequests,
    /// The round's time limit passed before all requests were sent.
    #[error("polling: the round took longer than {0:?}")]
    TooLong(Duration),
    /// The probe panicked.
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

    /// Whether the server did respond, so that further requests are worth their time.
    const fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Fetch(FetchError::Status { .. } | FetchError::Redirect { .. } | FetchError::TooLarge { .. })
                | Self::Probe(_)
        )
    }
}

impl SourcePoller {
    pub(crate) fn new(source: Arc<Source>, client: HttpClient, now: Now) -> Self {
        Self { source, client, now, probe: None }
    }

    /// Runs one round. What was read before a failure is kept.
    pub(crate) async fn round(&mut self) -> Round {
        let mut round = Round::default();
        if let Err(error) = self.poll_all(&mut round).await {
            round.failures.push(error);
        }
        round
    }

    /// Returns the error that ended the round early, if one did.
    async fn poll_all(&mut self, round: &mut Round) -> Result<(), RoundError> {
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
            let answer = self.client.get(&self.source, &request.path, left.min(self.source.timeout)).await;
            round.busy += sent.elapsed();
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

    /// Runs `job` on a blocking thread, where it may panic and take its time: parsing 32 MiB would delay other sources.
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

/// The time limit of a round, as a multiple of that of one response.
pub(crate) const ROUND_TIMEOUTS: u32 = 5;

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::intake::observations::stream_count;
    use crate::intake::poll::trial::try_once;
    use crate::intake::testing::{Does, KINDS, Server, settings, ticking};

    fn client() -> HttpClient {
        HttpClient::new().expect("a client")
    }

    async fn round_of(server: &Server, more: &str) -> Round {
        SourcePoller::new(server.source(more), client().with_max_body(1_000_000), ticking()).round().await
    }

    /// Reason and message of the only failure against a server that always does `what`, and the number of requests.
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
            "/" => Does::Answers(200, "live/a 3\nmore /next"),
            "/1" => Does::Answers(200, "live/b 4"),
            "/next" => Does::Answers(200, "live/a 5"),
            _ => Does::Answers(404, ""),
        })
        .await;
        let round = round_of(&server, "pages = 2").await;
        assert!(round.failures.is_empty(), "{:?}", round.failures);
        let at: Vec<u64> = round.observations.iter().map(|observation| observation.at.millis()).collect();
        assert_eq!(at, [1_000_000, 1_000_001, 1_000_002], "each has the instant of its own request");
        let summary = try_once(&server.source("pages = 2"), &client(), &ticking()).await.expect("good");
        assert_eq!((summary.requests, summary.streams, summary.viewers), (3, 2, Some(9)));
        assert!(summary.to_string().starts_with("streams: 2, viewers: 9, answered within "), "{summary}");
    }

    #[tokio::test]
    async fn failures_have_a_reason_and_a_bounded_cost() {
        let short = "timeout = '100ms'";
        for (what, more, reason, expected) in [
            (Does::Hangs, short, "timeout", "/: no complete response within 100ms"),
            (Does::Drips, short, "timeout", "no complete response"),
            (Does::Floods, "", "too_large", "response of more than 1000000 bytes"),
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
                "broken response: ",
            ),
            (Does::Sends(b"\x03rubbish\r\n\r\n".to_vec()), "", "broken", "broken response: "),
            (Does::Sends(Vec::new()), "", "broken", "broken response: "),
            (Does::Answers(500, "live/a 3"), "", "status", "status 500"),
            (Does::Answers(401, ""), "", "status", "status 401; set username and password_file, or token_file"),
            (Does::Answers(200, "rubbish"), "", "malformed", "reading the fake's lines: a line without a space"),
            (Does::Answers(200, "panic"), "", "panic", "the probe panicked"),
        ] {
            let (got, text, asked) = failure(what, more).await;
            assert_eq!((got, asked), (reason, 1), "{text}");
            assert!(text.contains(expected), "{text}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_a_connect_error() {
        let source = {
            let server = Server::start(|_, _| Does::Hangs).await;
            server.source("")
        };
        // The port is free again once the server's task is gone.
        let error = loop {
            match try_once(&source, &client(), &ticking()).await {
                Err(RoundError::Fetch(error @ FetchError::Connect { .. })) => break error,
                _ => tokio::task::yield_now().await,
            }
        };
        assert!(error.to_string().contains("connecting: "), "{error}");
    }

    #[tokio::test]
    async fn a_server_without_tls_is_a_tls_error() {
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
        let error = try_once(&source, &client(), &ticking()).await.expect_err("no TLS");
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
            Server::start(move |path, _| if path == "/" { same.clone() } else { Does::Answers(200, "live/a 3") }).await;
        let round = round_of(&server, "").await;
        assert!(round.failures.is_empty() && round.observations.len() == 1, "{round:?}");

        let elsewhere = Server::start(|_, _| Does::Answers(200, "live/a 3")).await;
        let (reason, text, _) = failure(to(&format!("{}?token=x", elsewhere.url())), "").await;
        assert_eq!(reason, "redirect");
        assert!(
            text.contains("another server; if that is right, make it the source's url") && !text.contains("token"),
            "{text}"
        );
        assert_eq!(elsewhere.asked.load(Ordering::SeqCst), 0, "it received no request");

        let (reason, text, asked) = failure(endless, "").await;
        assert_eq!((reason, asked), ("redirect", 4), "{text}");
    }

    #[tokio::test]
    async fn observations_from_before_a_failure_are_kept() {
        let server = Server::start(|path, _| match path {
            "/" => Does::Answers(200, "live/a 3\nrubbish"),
            "/1" => Does::Answers(404, ""),
            _ => Does::Answers(200, "live/b 4"),
        })
        .await;
        let round = round_of(&server, "pages = 3").await;
        let reasons: Vec<&str> = round.failures.iter().map(RoundError::reason).collect();
        assert_eq!(reasons, ["malformed", "status"]);
        assert_eq!(stream_count(&round.observations), 2);
    }

    #[tokio::test]
    async fn a_server_of_endless_pages_ends_the_round() {
        let (reason, _, asked) = failure(Does::Answers(200, "more /again"), "").await;
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
        let server =
            Server::start(|_, number| Does::Answers(200, if number == 0 { "panic" } else { "live/a 3" })).await;
        let mut poller = SourcePoller::new(server.source(""), client(), ticking());
        assert_eq!(poller.round().await.failures.len(), 1);
        let round = poller.round().await;
        assert_eq!((round.failures.len(), round.observations.len()), (0, 1));
    }

    #[tokio::test]
    async fn the_credentials_are_sent() {
        let server = Server::start(|_, _| Does::Answers(200, "")).await;
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
    async fn a_compressed_response_is_limited_by_its_decompressed_size() {
        use std::io::Write as _;
        let compressed = |body: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body).expect("compressed");
            let compressed = encoder.finish().expect("compressed");
            let mut answer =
                format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", compressed.len())
                    .into_bytes();
            answer.extend(compressed);
            answer
        };
        let good = compressed(b"live/a 3");
        let server = Server::start(move |_, _| Does::Sends(good.clone())).await;
        assert_eq!(round_of(&server, "").await.observations.len(), 1);
        let (reason, text, _) = failure(Does::Sends(compressed(&vec![b'\n'; 2_000_000])), "").await;
        assert_eq!(reason, "too_large", "{text}");
    }
}
