//! The endpoints of one target, in order of preference. A request goes to the next one while one is silent or
//! unavailable and returns to the first once that answers again. An endpoint that asks for a pause, or is slow, is not
//! replaced.

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Duration, Instant, timeout};

use super::payload::Payload;
use super::retry::{Answer, Verdict, classify};
use super::send_order::Lane;
use super::transport::Transport;

/// The endpoints of a target, and which one is in use.
#[derive(Debug)]
pub(super) struct Failover {
    /// In order of preference; the first is absent while [`probe`](Self::probe) uses it.
    endpoints: Vec<Option<Transport>>,
    at: usize,
    /// An empty request, to probe the first endpoint.
    empty: Payload,
    probe: Option<JoinHandle<(Transport, bool)>>,
    next_probe: Instant,
    /// Requests in flight, including those whose answer is no longer waited for; each returns how long a late answer
    /// took.
    in_flight: JoinSet<Option<(Lane, Duration)>>,
}

impl Failover {
    /// Starts with the first of `endpoints`; `empty` is a request without records.
    pub(super) fn new(endpoints: Vec<Transport>, empty: Payload) -> Self {
        let endpoints = endpoints.into_iter().map(Some).collect();
        Self { endpoints, at: 0, empty, probe: None, next_probe: Instant::now(), in_flight: JoinSet::new() }
    }

    /// Sends to the endpoint in use, then to each other one until one answers. An answer that takes longer than `wait`
    /// counts as none; see [`Failover::late`].
    pub(super) async fn send(&mut self, payload: &Payload, lane: Lane, wait: Duration) -> Answer {
        self.return_to_first().await;
        let mut last = Answer::Silence("no endpoint is left to try".to_owned());
        for step in 0..self.endpoints.len() {
            let at = (self.at + step) % self.endpoints.len();
            let Some(answer) = self.try_endpoint(at, payload, lane, wait).await else {
                continue;
            };
            last = answer;
            if !another_may_accept(&last) {
                if at != self.at {
                    tracing::warn!(endpoint = ?self.endpoints[at], "otlp export continues with another endpoint");
                    self.next_probe = Instant::now() + PROBE_INTERVAL;
                    self.at = at;
                }
                break;
            }
        }
        last
    }

    /// Sends to one endpoint; `None` where it is being probed.
    async fn try_endpoint(&mut self, at: usize, payload: &Payload, lane: Lane, wait: Duration) -> Option<Answer> {
        let endpoint = self.endpoints[at].as_mut()?;
        let (request, began) = (endpoint.start(payload), Instant::now());
        let (sender, receiver) = oneshot::channel();
        let task = self.in_flight.spawn(async move {
            // Fails where nobody waits any more; a late answer still shows that the endpoint is there.
            let answer = sender.send(request.await).err()?;
            (!matches!(answer, Answer::Silence(_))).then(|| (lane, began.elapsed()))
        });
        let answer = if let Ok(answer) = timeout(wait, receiver).await {
            answer.unwrap_or_else(|_| Answer::Silence("the request was cancelled".to_owned()))
        } else {
            // The oldest stay in flight until their time-out: an answer to them shows a slow collector, not a dead one.
            if self.in_flight.len() > MAX_UNANSWERED {
                task.abort();
            }
            Answer::Silence(format!("no answer within {wait:?}"))
        };
        if matches!(answer, Answer::Silence(_)) {
            endpoint.reconnect();
        }
        Some(answer)
    }

    /// A late answer, which was no longer waited for: its lane, and how long it took.
    pub(super) fn late(&mut self) -> Option<(Lane, Duration)> {
        while let Some(done) = self.in_flight.try_join_next() {
            if let Ok(Some(late)) = done {
                return Some(late);
            }
        }
        None
    }

    /// Probes the first endpoint in the background, and returns to it once it answers.
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
                tracing::info!("otlp export returns to its first endpoint");
                self.at = 0;
            }
        } else if self.probe.is_none()
            && self.next_probe <= Instant::now()
            && let Some(mut first) = self.endpoints[0].take()
        {
            self.next_probe = Instant::now() + PROBE_INTERVAL;
            let empty = self.empty.clone();
            self.probe = Some(tokio::spawn(async move {
                let verdict = classify(first.send(&empty).await);
                (first, matches!(verdict, Verdict::Delivered(_)))
            }));
        }
    }
}

/// Whether another endpoint may accept the request now: there was no answer, or one that reports the endpoint
/// unavailable without asking for a pause.
fn another_may_accept(answer: &Answer) -> bool {
    match answer {
        Answer::Silence(_) => true,
        Answer::Rpc { code, retry_info, .. } => *code == tonic::Code::Unavailable && retry_info.is_none(),
        Answer::Http { status, retry_after } => matches!(status, 502..=504) && retry_after.is_none(),
        Answer::Accepted(_) | Answer::Unreadable(_) => false,
    }
}

/// How often an unavailable first endpoint is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Most unanswered requests in flight beside the one that is waited for.
const MAX_UNANSWERED: usize = 4;
