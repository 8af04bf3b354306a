//! The task that empties one signal's queue. Decides when a batch is due and what follows an answer; refuses to give up on
//! what a collector may still take: only the outbox's bound drops it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use super::frame::Frame;
use super::outbox::{Backlog, Batch, Bell, Limits, Outbox};
use super::payload::Payload;
use super::record::Signal;
use super::retry::{Answer, Partial, Verdict, backoff, classify};
use super::settings::Compression;
use super::stats::{Counters, Stats, add, read};
use super::transport::Transport;

/// How a sender paces itself; the defaults are the product's, tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Most spans, log records or data points in a request.
    pub items: u64,
    /// Most bytes of a request before compression; collectors take 4 MiB by default.
    pub bytes: usize,
    /// Longest wait of a record for a full batch.
    pub interval: Duration,
    /// Longest wait of an urgent record for its companions: all samples of one cut come together.
    pub linger: Duration,
    /// First wait before a repeat.
    pub first_retry: Duration,
    /// Longest wait before a repeat.
    pub max_retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            items: 1_024,
            bytes: (4 << 20) - 1,
            interval: Duration::from_secs(5),
            linger: Duration::from_millis(250),
            first_retry: Duration::from_secs(1),
            max_retry: Duration::from_secs(30),
        }
    }
}

/// The instant until which a stopping sender may go on; `None` while running.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

/// One signal on its way to one endpoint.
pub(super) struct Sender {
    pub(super) signal: Signal,
    pub(super) transport: Transport,
    pub(super) compression: Compression,
    pub(super) frame: Frame,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) bell: Arc<Bell>,
    pub(super) stats: Arc<Stats>,
    pub(super) pace: Pace,
    pub(super) stop: Stop,
}

impl Sender {
    /// Sends until told to stop and either nothing is left or the time is up.
    pub(super) async fn run(mut self) {
        while self.due().await {
            let batch = self.next().await;
            if batch.messages.is_empty() && self.stopping() {
                return;
            }
            if !self.deliver(batch).await {
                return;
            }
        }
    }

    /// Waits until a batch should go; `false` where stopping and nothing is left.
    async fn due(&mut self) -> bool {
        let mut since = None;
        loop {
            let backlog = self.outbox.backlog(self.signal);
            let wait_until = match (backlog.records, self.stopping()) {
                (0, true) => return false,
                (0, false) => None,
                _ if self.stopping() || self.full(backlog) => return true,
                _ => {
                    let urgent = self.bell.is_urgent();
                    let wait = if urgent { self.pace.linger } else { self.pace.interval };
                    Some(*since.get_or_insert_with(Instant::now) + wait)
                }
            };
            tokio::select! {
                () = self.bell.rung() => {}
                () = until(wait_until) => return true,
                () = told_to_stop(self.stop.clone()) => {}
            }
        }
    }

    fn full(&self, backlog: Backlog) -> bool {
        backlog.items >= self.pace.items || backlog.bytes >= self.room() as u64
    }

    /// Bytes left for messages in a request.
    fn room(&self) -> usize {
        self.pace.bytes.saturating_sub(self.frame.overhead())
    }

    /// The next batch; what is urgent beyond it stays urgent.
    async fn next(&self) -> Batch {
        let urgent = self.bell.take_urgent();
        let limits = Limits { items: self.pace.items, bytes: self.room() };
        let (outbox, signal) = (Arc::clone(&self.outbox), self.signal);
        // It may read from disk. Where the runtime is going down there is nothing to send.
        let batch = spawn_blocking(move || outbox.peek(signal, limits)).await.unwrap_or_default();
        if urgent && self.outbox.backlog(self.signal).records > batch.messages.len() as u64 {
            self.bell.set_urgent();
        }
        batch
    }

    /// Sends `batch` until it is settled; `false` where the time was up before.
    async fn deliver(&mut self, batch: Batch) -> bool {
        if batch.messages.is_empty() {
            return true;
        }
        let payload = Payload::pack(self.frame.request(&batch.messages), self.compression).await;
        let mut attempt = 0;
        loop {
            let Some(answer) = self.attempt(&payload).await else {
                return false;
            };
            add(&self.counters().requests, 1);
            match classify(answer) {
                Verdict::Delivered(partial) => self.delivered(&batch, &payload, &partial),
                Verdict::Final(reason) => self.failed(&batch, &reason),
                Verdict::Retry { after, reason } => {
                    self.refused(&reason);
                    if !self.pause(after, attempt).await {
                        return false;
                    }
                    add(&self.counters().retried, batch.items);
                    attempt = attempt.saturating_add(1);
                    continue;
                }
            }
            self.outbox.acknowledge(self.signal, batch.until);
            return true;
        }
    }

    /// One attempt; `None` where the time was up first.
    async fn attempt(&mut self, payload: &Payload) -> Option<Answer> {
        let time_up = time_up(self.stop.clone());
        tokio::select! {
            answer = self.transport.send(payload) => Some(answer),
            () = time_up => None,
        }
    }

    /// Waits before a repeat: as long as the collector asked, else the back-off, which a stop cuts short and keeps short.
    /// `false` where the time was up first.
    async fn pause(&self, asked: Option<Duration>, attempt: u32) -> bool {
        let stopping = self.stopping();
        let longest = if stopping { STOPPING_RETRY } else { Duration::MAX };
        let delay = asked.unwrap_or_else(|| {
            let pace = self.pace;
            backoff(pace.first_retry, pace.max_retry.min(longest), attempt, chance())
        });
        let may_cut_short = asked.is_none() && !stopping;
        tokio::select! {
            () = sleep(delay) => true,
            () = time_up(self.stop.clone()) => false,
            () = told_to_stop(self.stop.clone()), if may_cut_short => true,
        }
    }

    fn delivered(&self, batch: &Batch, payload: &Payload, partial: &Partial) {
        let counters = self.counters();
        let rejected = partial.rejected.min(batch.items);
        add(&counters.sent, batch.items - rejected);
        add(&counters.raw_bytes, payload.raw_len as u64);
        add(&counters.wire_bytes, payload.bytes.len() as u64);
        let known = read(&counters.rejected) > 0;
        add(&counters.rejected, rejected);
        if rejected > 0 && !known {
            tracing::warn!(signal = self.signal.as_str(), rejected, why = partial.message, "collector refuses a part");
        } else if !partial.message.is_empty() {
            tracing::debug!(signal = self.signal.as_str(), rejected, why = partial.message, "collector remarks");
        }
        if counters.note(None) {
            tracing::info!(signal = self.signal.as_str(), "collector takes records again");
        }
    }

    fn failed(&self, batch: &Batch, reason: &str) {
        add(&self.counters().failed, batch.items);
        self.refused(reason);
    }

    /// Logged when the trouble begins, then only counted.
    fn refused(&self, reason: &str) {
        if self.counters().note(Some(reason)) {
            tracing::warn!(signal = self.signal.as_str(), why = reason, "collector does not take records");
        }
    }

    fn counters(&self) -> &Counters {
        self.stats.of(self.signal)
    }

    fn stopping(&self) -> bool {
        self.stop.borrow().is_some() || self.stop.has_changed().is_err()
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

/// Returns when a stop is asked for or whoever could ask is gone.
async fn told_to_stop(mut stop: Stop) {
    // The error says that nobody can ask any more, which is a stop too.
    stop.wait_for(Option::is_some).await.map(drop).unwrap_or_default();
}

/// Returns when a stop was asked for and its time is up, or at once where whoever could ask is gone.
async fn time_up(mut stop: Stop) {
    let until = stop.wait_for(Option::is_some).await.ok().and_then(|until| *until);
    if let Some(until) = until {
        sleep_until(until).await;
    }
}

/// Evenly from 0 to 1; the middle where the system has no randomness to give.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

/// Longest wait before a repeat while stopping: in five seconds a collector that restarts may still be met.
const STOPPING_RETRY: Duration = Duration::from_millis(250);
