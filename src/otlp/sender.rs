//! The task that sends one signal's queue to one target: when a batch is due, and what follows each answer. Nothing
//! that a collector may still accept is given up here; only a full queue drops records.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::answer_timeout::AnswerTimeout;
use super::failover::Failover;
use super::payload::Payload;
use super::queue::{Batch, ExportQueue, Limits, Wakeup};
use super::record::Signal;
use super::request::RequestTemplate;
use super::retry::{Answer, Partial, Verdict, classify};
use super::send_order::{Lane, SendOrder};
use super::settings::Compression;
use super::stats::{Counters, Stats, add, read};
use crate::platform::backoff::{backoff, jitter};

/// Batch sizes and delays of a sender; the defaults are those of the daemon, tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Most spans, log records or data points in a request.
    pub items: u64,
    /// Most bytes of a request before compression; collectors take 4 MiB by default.
    pub bytes: usize,
    /// Longest delay of a record that waits for a full batch.
    pub interval: Duration,
    /// Longest delay of an urgent record: all samples of one cut are appended together.
    pub linger: Duration,
    /// The pause before the first retry.
    pub first_retry: Duration,
    /// Longest time between two attempts. Not longer than [`interval`](Self::interval), so that a collector that is
    /// back soon shows the present; the requests tried meanwhile are small.
    pub max_retry: Duration,
    /// How long to wait at least for an answer before the next attempt.
    pub min_answer_timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            items: 1_024,
            bytes: (4 << 20) - 1,
            interval: Duration::from_secs(5),
            linger: Duration::from_millis(250),
            first_retry: Duration::from_secs(1),
            max_retry: Duration::from_secs(5),
            min_answer_timeout: Duration::from_secs(2),
        }
    }
}

/// The instant at which a stopping sender must end; `None` while running.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

/// Sends one signal to one target.
pub(super) struct Sender {
    pub(super) signal: Signal,
    pub(super) target: Arc<str>,
    pub(super) failover: Failover,
    pub(super) compression: Compression,
    /// Longest wait for an answer.
    pub(super) timeout: Duration,
    pub(super) template: RequestTemplate,
    pub(super) queue: Arc<dyn ExportQueue>,
    pub(super) wakeup: Arc<Wakeup>,
    pub(super) stats: Arc<Stats>,
    pub(super) pace: Pace,
    pub(super) stop: Stop,
    pub(super) progress: Progress,
}

/// The state of a sender.
#[derive(Debug, Default)]
pub(super) struct Progress {
    order: SendOrder,
    /// Since when fresh records are queued.
    fresh_since: Option<Instant>,
    /// The failures of each lane.
    failures: [Failures; 2],
    /// How fast each lane is answered.
    answer_timeouts: [AnswerTimeout; 2],
    /// Whether the last answer that accepted records had a message.
    had_message: bool,
}

/// Failed attempts of a lane since its last success.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    /// Failed attempts in a row.
    count: u32,
    /// When the next attempt may begin.
    retry_at: Option<Instant>,
    /// Whether a stop must not shorten that: the collector asked for it, or the sender is stopping already.
    fixed: bool,
}

impl Sender {
    /// Sends until it is stopped and either nothing is queued or the time is up.
    pub(super) async fn run(mut self) {
        while let Some(lane) = self.due().await {
            if !self.deliver(lane).await {
                return;
            }
        }
    }

    /// Waits until a batch of a lane is due; `None` where it is stopping and nothing is queued or the time is up.
    async fn due(&mut self) -> Option<Lane> {
        loop {
            let stopping = self.stopping();
            if stopping && self.queue.backlog(self.signal).records == 0 {
                return None;
            }
            let next = self.plan(stopping);
            if let Some((at, lane)) = next
                && at <= Instant::now()
            {
                return Some(lane);
            }
            tokio::select! {
                () = self.wakeup.notified() => {}
                () = until(next.map(|(at, _)| at)) => {}
                () = stop_requested(self.stop.clone()), if !stopping => {}
                () = time_up(self.stop.clone()), if stopping => return None,
            }
        }
    }

    /// Which lane is sent next, and when. Fresh records are sent first; while they fail only they are tried, in small
    /// requests, and the backlog waits until the collector accepts something again.
    fn plan(&mut self, stopping: bool) -> Option<(Instant, Lane)> {
        let backlog = self.queue.backlog(self.signal);
        let end = self.queue.end(self.signal);
        let (limits, progress) = (self.limits(), &mut self.progress);
        if let Some(end) = end {
            progress.order.update(backlog, end, limits);
        }
        let now = Instant::now();
        let fresh = end.and_then(|end| progress.order.fresh_count(end));
        let (count, full) = match fresh {
            Some(count) => (count, count >= limits.items),
            None => (backlog.records, backlog.items >= limits.items || backlog.bytes >= limits.bytes as u64),
        };
        let [of_fresh, of_backlog] = progress.failures;
        let free = |failures: Failures| failures.retry_at.filter(|_| failures.fixed || !stopping).unwrap_or(now);
        let fresh = (count > 0).then(|| {
            let urgent = self.wakeup.is_urgent();
            let wait = if urgent { self.pace.linger } else { self.pace.interval };
            let since = *progress.fresh_since.get_or_insert(now);
            let ready = if stopping || full || of_fresh.count > 0 { now } else { since + wait };
            (ready.max(free(of_fresh)), Lane::Fresh)
        });
        let backlog = progress.order.is_split() && (count == 0 || of_fresh.count == 0);
        let backlog = backlog.then(|| (free(of_backlog), Lane::Backlog));
        fresh.into_iter().chain(backlog).min_by_key(|(at, _)| (*at).max(now))
    }

    fn limits(&self) -> Limits {
        Limits { items: self.pace.items, bytes: self.pace.bytes.saturating_sub(self.template.overhead()) }
    }

    /// The next batch of `lane`; urgent records after it stay urgent.
    async fn next(&self, lane: Lane) -> Batch {
        let urgent = lane == Lane::Fresh && self.wakeup.take_urgent();
        let (signal, queue, limits) = (self.signal, Arc::clone(&self.queue), self.limits());
        let order = self.progress.order.clone();
        // May read from disk. Fails where the runtime shuts down: nothing is sent then.
        let next = move || order.next(lane, limits, |from, limits| queue.peek_from(signal, from, limits));
        let batch = spawn_blocking(next).await.unwrap_or_default();
        let beyond = |end: u64| end.saturating_sub(batch.until);
        if urgent && self.queue.end(signal).map_or_else(|| self.queue.backlog(signal).records, beyond) > 0 {
            self.wakeup.set_urgent();
        }
        batch
    }

    /// Sends the next batch of `lane` once; `false` where the time was up before an answer came.
    async fn deliver(&mut self, lane: Lane) -> bool {
        let batch = self.next(lane).await;
        if !batch.messages.is_empty() {
            let payload = Payload::compress(self.template.build(&batch.messages), self.compression).await;
            let began = Instant::now();
            let Some(answer) = self.attempt(lane, &payload).await else {
                return false;
            };
            add(&self.counters().requests, 1);
            match classify(answer) {
                Verdict::Delivered(partial) => self.delivered(&batch, &payload, &partial),
                Verdict::Final(reason) => self.failed(&batch, &reason),
                Verdict::Retry { after, reason } => {
                    add(&self.counters().retried, batch.items);
                    self.refused(&reason);
                    self.put_off(lane, began, after);
                    return true;
                }
            }
        }
        if batch == Batch::default() && !(lane == Lane::Fresh && self.progress.order.is_split()) {
            // Nothing can be read now and nothing is lost: the disk fails.
            self.put_off(lane, Instant::now(), None);
            return true;
        }
        let progress = &mut self.progress;
        progress.failures[lane as usize] = Failures::default();
        if lane == Lane::Fresh {
            progress.fresh_since = None;
            if batch.messages.is_empty() {
                progress.order.skip(self.queue.end(self.signal).unwrap_or_default());
            }
        }
        self.queue.acknowledge(self.signal, progress.order.settled(lane, &batch));
        true
    }

    /// Makes one attempt; `None` where the time was up first.
    async fn attempt(&mut self, lane: Lane, payload: &Payload) -> Option<Answer> {
        while let Some((lane, took)) = self.failover.late() {
            self.progress.answer_timeouts[lane as usize].record(took);
        }
        // A backlog is large, and nothing is known yet of how long that takes; fresh records are few.
        let unknown = if lane == Lane::Fresh { self.pace.min_answer_timeout } else { self.timeout };
        let wait =
            self.progress.answer_timeouts[lane as usize].now(self.pace.min_answer_timeout, unknown).min(self.timeout);
        let (began, time_up) = (Instant::now(), time_up(self.stop.clone()));
        let answer = tokio::select! {
            answer = self.failover.send(payload, lane, wait) => answer,
            () = time_up => return None,
        };
        if !matches!(answer, Answer::Silence(_)) {
            self.progress.answer_timeouts[lane as usize].record(began.elapsed());
        }
        Some(answer)
    }

    /// Sets when a lane whose attempt started at `began` is tried again: as the collector asked, for both lanes, else
    /// by the back-off, which counts from the start of the attempt.
    fn put_off(&mut self, lane: Lane, began: Instant, asked: Option<Duration>) {
        let (stopping, now) = (self.stopping(), Instant::now());
        let longest = if stopping { STOPPING_RETRY } else { Duration::MAX };
        let failures = &mut self.progress.failures;
        let pace = self.pace;
        let retry_at = asked.map_or_else(
            || {
                let delay =
                    backoff(pace.first_retry, pace.max_retry.min(longest), failures[lane as usize].count, jitter());
                (began + delay).max(now + (pace.first_retry / 2).min(delay))
            },
            |asked| now + asked,
        );
        let fixed = stopping || asked.is_some();
        failures[lane as usize] =
            Failures { count: failures[lane as usize].count.saturating_add(1), retry_at: Some(retry_at), fixed };
        if asked.is_some() {
            for lane in failures {
                (lane.retry_at, lane.fixed) = (Some(retry_at), true);
            }
        }
    }

    fn delivered(&mut self, batch: &Batch, payload: &Payload, partial: &Partial) {
        // A message without rejected records is a warning; logged when such messages begin.
        let has_message = !partial.message.is_empty();
        let new = has_message && !self.progress.had_message;
        self.progress.had_message = has_message;
        let counters = self.stats.of(self.signal);
        let rejected = partial.rejected.min(batch.items);
        add(&counters.sent, batch.items - rejected);
        add(&counters.raw_bytes, payload.raw_len as u64);
        add(&counters.wire_bytes, payload.bytes.len() as u64);
        let first = rejected > 0 && read(&counters.rejected) == 0;
        add(&counters.rejected, rejected);
        if first || new {
            tracing::warn!(
                target = &*self.target,
                signal = self.signal.as_str(),
                rejected,
                why = partial.message,
                "collector sent a message with its answer"
            );
        }
        if counters.record(None) {
            tracing::info!(target = &*self.target, signal = self.signal.as_str(), "collector accepts records again");
        }
    }

    fn failed(&self, batch: &Batch, reason: &str) {
        add(&self.counters().failed, batch.items);
        self.refused(reason);
    }

    /// Logs the first failure; the following ones are only counted.
    fn refused(&self, reason: &str) {
        if self.counters().record(Some(reason)) {
            tracing::warn!(
                target = &*self.target,
                signal = self.signal.as_str(),
                why = reason,
                "collector does not accept records"
            );
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

/// Returns when a stop is requested, or when nobody can request one any more.
async fn stop_requested(mut stop: Stop) {
    // An error means that the requesting side is gone, which is a stop too.
    stop.wait_for(Option::is_some).await.map(drop).unwrap_or_default();
}

/// Returns when a stop was requested and its time is up, or at once where nobody can request one any more.
async fn time_up(mut stop: Stop) {
    let until = stop.wait_for(Option::is_some).await.ok().and_then(|until| *until);
    if let Some(until) = until {
        sleep_until(until).await;
    }
}

/// Longest pause before a retry while stopping: a collector that restarts may be back within the five seconds of a
/// stop.
const STOPPING_RETRY: Duration = Duration::from_millis(250);
