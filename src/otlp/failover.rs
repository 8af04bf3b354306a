//! The endpoints of one target in the order of preference. Decides which one is asked: the next where one is silent or
//! unavailable, the first again once it answers; refuses to pour on another what one asked to be sent later, and to
//! take one for gone that is slow.

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Duration, Instant, timeout};

use super::payload::Payload;
use super::retry::{Answer, Verdict, classify};
use super::send_order::Lane;
use super::transport::Transport;

/// The way to a target.
#[derive(Debug)]
pub(super) struct Failover {
    /// In the order of preference; the first is absent while it is asked by [`probe`](Self::probe).
    endpoints: Vec<Option<Transport>>,
    at: usize,
    /// An empty request, to ask the first endpoint whether it is back.
    empty: Payload,
    probe: Option<JoinHandle<(Transport, bool)>>,
    next_probe: Instant,
    /// Requests on their way, also those whose answer is not waited for any more: each tells what its answer took,
    /// where it came late.
    underway: JoinSet<Option<(Lane, Duration)>>,
}

impl Failover {
    /// A way over `endpoints`, the first preferred; `empty` is a request without records.
    pub(super) fn new(endpoints: Vec<Transport>, empty: Payload) -> Self {
        let endpoints = endpoints.into_iter().map(Some).collect();
        Self { endpoints, at: 0, empty, probe: None, next_probe: Instant::now(), underway: JoinSet::new() }
    }

    /// Sends to the endpoint that answered last, then to each other one until one answers. An answer that takes longer
    /// than `patience` counts as none; see [`Failover::late`].
    pub(super) async fn send(&mut self, payload: &Payload, lane: Lane, patience: Duration) -> Answer {
        self.return_to_first().await;
        let mut last = Answer::Silence("no endpoint is left to ask".to_owned());
        for step in 0..self.endpoints.len() {
            let at = (self.at + step) % self.endpoints.len();
            let Some(answer) = self.ask(at, payload, lane, patience).await else {
                continue;
            };
            last = answer;
            if !another_may_do(&last) {
                if at != self.at {
                    tracing::warn!(endpoint = ?self.endpoints[at], "otlp goes on with another endpoint");
                    self.next_probe = Instant::now() + PROBE_EVERY;
                    self.at = at;
                }
                break;
            }
        }
        last
    }

    /// What an endpoint answers, where it is there to be asked.
    async fn ask(&mut self, at: usize, payload: &Payload, lane: Lane, patience: Duration) -> Option<Answer> {
        let endpoint = self.endpoints[at].as_mut()?;
        let (request, began) = (endpoint.start(payload), Instant::now());
        let (tell, told) = oneshot::channel();
        let task = self.underway.spawn(async move {
            // Who does not wait any more is told at least that somebody is there.
            let answer = tell.send(request.await).err()?;
            (!matches!(answer, Answer::Silence(_))).then(|| (lane, began.elapsed()))
        });
        let answer = if let Ok(answer) = timeout(patience, told).await {
            answer.unwrap_or_else(|_| Answer::Silence("the request broke off".to_owned()))
        } else {
            // The oldest stay: each has all its time to show that the collector is slow and not gone.
            if self.underway.len() > MAX_UNANSWERED {
                task.abort();
            }
            Answer::Silence(format!("no answer within {patience:?}"))
        };
        if matches!(answer, Answer::Silence(_)) {
            endpoint.doubt();
        }
        Some(answer)
    }

    /// An answer that came when it was not waited for any more: whose, and how long it took.
    pub(super) fn late(&mut self) -> Option<(Lane, Duration)> {
        while let Some(done) = self.underway.try_join_next() {
            if let Ok(Some(late)) = done {
                return Some(late);
            }
        }
        None
    }

    /// Asks the first endpoint beside the running export, so that nothing waits for one that is still gone.
    async fn return_to_first(&mut self) {
        if self.at == 0 {
            return;
        }
        if self.probe.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(probe) = self.probe.take()
            && let Ok((first, is_back)) = probe.await
        {
            self.endpoints[0] = Some(first);
            if is_back {
                tracing::info!("otlp returns to its first endpoint");
                self.at = 0;
            }
        } else if self.probe.is_none()
            && self.next_probe <= Instant::now()
            && let Some(mut first) = self.endpoints[0].take()
        {
            self.next_probe = Instant::now() + PROBE_EVERY;
            let empty = self.empty.clone();
            self.probe = Some(tokio::spawn(async move {
                let verdict = classify(first.send(&empty).await);
                (first, matches!(verdict, Verdict::Delivered(_)))
            }));
        }
    }
}

/// Whether an answer speaks of the endpoint alone, so that another one may take the request now: nobody answered, or
/// somebody said that nobody is there, without asking for patience.
fn another_may_do(answer: &Answer) -> bool {
    match answer {
        Answer::Silence(_) => true,
        Answer::Rpc { code, retry_info, .. } => *code == tonic::Code::Unavailable && retry_info.is_none(),
        Answer::Http { status, retry_after } => matches!(status, 502..=504) && retry_after.is_none(),
        Answer::Accepted(_) | Answer::Unreadable(_) => false,
    }
}

/// How often a preferred endpoint that went away is asked whether it is back.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// Most requests that go on unanswered beside the one that is waited for.
const MAX_UNANSWERED: usize = 4;
