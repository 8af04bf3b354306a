//! The endpoints of one target in the order of preference. Decides which one is asked: the next where one is silent or unavailable,
//! the first again once it answers; refuses to pour on another what one asked to be sent later.

use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::payload::Payload;
use super::retry::{Answer, Verdict, classify};
use super::transport::Transport;

/// The way to a target.
#[derive(Debug)]
pub(super) struct Route {
    /// In the order of preference; the first is absent while it is [`probed`](Self::probed).
    endpoints: Vec<Option<Transport>>,
    at: usize,
    /// An empty request, to ask the first endpoint whether it is back.
    empty: Payload,
    probe: Option<JoinHandle<(Transport, bool)>>,
    next_probe: Instant,
}

impl Route {
    /// A way over `endpoints`, the first preferred; `empty` is a request without records.
    pub(super) fn new(endpoints: Vec<Transport>, empty: Payload) -> Self {
        let endpoints = endpoints.into_iter().map(Some).collect();
        Self { endpoints, at: 0, empty, probe: None, next_probe: Instant::now() }
    }

    /// Sends to the endpoint that answered last, then to each other one until one answers.
    pub(super) async fn send(&mut self, payload: &Payload) -> Answer {
        self.return_to_first().await;
        let mut last = Answer::Silence("no endpoint is left to ask".to_owned());
        for step in 0..self.endpoints.len() {
            let at = (self.at + step) % self.endpoints.len();
            let Some(endpoint) = &mut self.endpoints[at] else {
                continue;
            };
            last = endpoint.send(payload).await;
            if !another_may_do(&last) {
                if at != self.at {
                    tracing::warn!(endpoint = ?endpoint, "otlp goes on with another endpoint");
                    self.next_probe = Instant::now() + PROBE_EVERY;
                    self.at = at;
                }
                break;
            }
        }
        last
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

/// Whether an answer speaks of the endpoint alone, so that another one may take the request now: nobody answered, or somebody said
/// that nobody is there, without asking for patience.
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
