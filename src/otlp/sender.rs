//! The task that empties one signal's queue to one target. Decides when a batch is due and what follows an answer;
//! refuses to give up on what a collector may still take: only the outbox's bound drops it.

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
use super::request::Frame;
use super::retry::{Answer, Partial, Verdict, classify};
use super::send_order::{Lane, SendOrder};
use super::settings::Compression;
use super::stats::{Counters, Stats, add, read};
use crate::platform::backoff::{backoff, jitter};

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
    /// Longest time from one attempt to the next: no longer than [`interval`](Self::interval), so that a collector that
    /// is back soon shows what happens now. What is tried meanwhile is small.
    pub max_retry: Duration,
    /// How long a collector that answers quickly may be silent before the next attempt.
    pub patience: Duration,
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
            patience: Duration::from_secs(2),
        }
    }
}

/// The instant until which a stopping sender may go on; `None` while running.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

/// One signal on its way to one target.
pub(super) struct Sender {
    pub(super) signal: Signal,
    pub(super) target: Arc<str>,
    pub(super) route: Failover,
    pub(super) compression: Compression,
    /// Longest wait for an answer.
    pub(super) timeout: Duration,
    pub(super) frame: Frame,
    pub(super) outbox: Arc<dyn ExportQueue>,
    pub(super) bell: Arc<Wakeup>,
    pub(super) stats: Arc<Stats>,
    pub(super) pace: Pace,
    pub(super) stop: Stop,
    pub(super) progress: Progress,
}

/// How far a sender is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    lanes: SendOrder,
    /// Since when fresh records wait.
    since: Option<Instant>,
    /// What fresh records and the backlog ran into last.
    refused: [Refused; 2],
    /// How fast they are answered.
    patience: [AnswerTimeout; 2],
    /// Whether a collector that took records last had something to say beside.
    remarked: bool,
}

/// What the last attempts of a lane ran into; nothing after a success.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    /// Attempts in a row that asked for another.
    times: u32,
    /// When the next may be.
    again: Option<Instant>,
    /// Whether that is what the collector asked for, or chosen by a sender that stops: no stop cuts it short.
    firm: bool,
}

impl Sender {
    /// Sends until told to stop and either nothing is left or the time is up.
    pub(super) async fn run(mut self) {
        while let Some(lane) = self.due().await {
            if !self.deliver(lane).await {
                return;
            }
        }
    }

    /// Waits until a batch of a lane should go; `None` where stopping and nothing is left or the time is up.
    async fn due(&mut self) -> Option<Lane> {
        loop {
            let stopping = self.stopping();
            if stopping && self.outbox.backlog(self.signal).records == 0 {
                return None;
            }
            let next = self.plan(stopping);
            if let Some((at, lane)) = next
                && at <= Instant::now()
            {
                return Some(lane);
            }
            tokio::select! {
                () = self.bell.rung() => {}
                () = until(next.map(|(at, _)| at)) => {}
                () = told_to_stop(self.stop.clone()), if !stopping => {}
                () = time_up(self.stop.clone()), if stopping => return None,
            }
        }
    }

    /// Which lane goes next and when. Fresh records go first; while they are refused they alone are tried, a small
    /// request, and the backlog waits until a collector takes something again.
    fn plan(&mut self, stopping: bool) -> Option<(Instant, Lane)> {
        let backlog = self.outbox.backlog(self.signal);
        let end = self.outbox.end(self.signal);
        let (limits, progress) = (self.limits(), &mut self.progress);
        if let Some(end) = end {
            progress.lanes.look(backlog, end, limits);
        }
        let now = Instant::now();
        let fresh = end.and_then(|end| progress.lanes.fresh(end));
        let (count, full) = match fresh {
            Some(count) => (count, count >= limits.items),
            None => (backlog.records, backlog.items >= limits.items || backlog.bytes >= limits.bytes as u64),
        };
        let [of_fresh, of_backlog] = progress.refused;
        let free = |refused: Refused| refused.again.filter(|_| refused.firm || !stopping).unwrap_or(now);
        let fresh = (count > 0).then(|| {
            let urgent = self.bell.is_urgent();
            let wait = if urgent { self.pace.linger } else { self.pace.interval };
            let since = *progress.since.get_or_insert(now);
            let ready = if stopping || full || of_fresh.times > 0 { now } else { since + wait };
            (ready.max(free(of_fresh)), Lane::Fresh)
        });
        let backlog = progress.lanes.split() && (count == 0 || of_fresh.times == 0);
        let backlog = backlog.then(|| (free(of_backlog), Lane::Backlog));
        fresh.into_iter().chain(backlog).min_by_key(|(at, _)| (*at).max(now))
    }

    fn limits(&self) -> Limits {
        Limits { items: self.pace.items, bytes: self.pace.bytes.saturating_sub(self.frame.overhead()) }
    }

    /// The next batch of `lane`; what is urgent beyond it stays urgent.
    async fn next(&self, lane: Lane) -> Batch {
        let urgent = lane == Lane::Fresh && self.bell.take_urgent();
        let (signal, outbox, limits) = (self.signal, Arc::clone(&self.outbox), self.limits());
        let lanes = self.progress.lanes.clone();
        // It may read from disk. Where the runtime is going down there is nothing to send.
        let next = move || lanes.next(lane, limits, |from, limits| outbox.peek_from(signal, from, limits));
        let batch = spawn_blocking(next).await.unwrap_or_default();
        let beyond = |end: u64| end.saturating_sub(batch.until);
        if urgent && self.outbox.end(signal).map_or_else(|| self.outbox.backlog(signal).records, beyond) > 0 {
            self.bell.set_urgent();
        }
        batch
    }

    /// Sends the next batch of `lane` once; `false` where the time was up before an answer.
    async fn deliver(&mut self, lane: Lane) -> bool {
        let batch = self.next(lane).await;
        if !batch.messages.is_empty() {
            let payload = Payload::pack(self.frame.request(&batch.messages), self.compression).await;
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
        if batch == Batch::default() && !(lane == Lane::Fresh && self.progress.lanes.split()) {
            // Nothing can be had now and nothing is lost: a disk that cannot be read.
            self.put_off(lane, Instant::now(), None);
            return true;
        }
        let progress = &mut self.progress;
        progress.refused[lane as usize] = Refused::default();
        if lane == Lane::Fresh {
            progress.since = None;
            if batch.messages.is_empty() {
                progress.lanes.pass(self.outbox.end(self.signal).unwrap_or_default());
            }
        }
        self.outbox.acknowledge(self.signal, progress.lanes.settled(lane, &batch));
        true
    }

    /// One attempt; `None` where the time was up first.
    async fn attempt(&mut self, lane: Lane, payload: &Payload) -> Option<Answer> {
        while let Some((lane, took)) = self.route.late() {
            self.progress.patience[lane as usize].learn(took);
        }
        // Nothing is known of how long much takes; what is fresh is little.
        let unknown = if lane == Lane::Fresh { self.pace.patience } else { self.timeout };
        let patience = self.progress.patience[lane as usize].now(self.pace.patience, unknown).min(self.timeout);
        let (began, time_up) = (Instant::now(), time_up(self.stop.clone()));
        let answer = tokio::select! {
            answer = self.route.send(payload, lane, patience) => answer,
            () = time_up => return None,
        };
        if !matches!(answer, Answer::Silence(_)) {
            self.progress.patience[lane as usize].learn(began.elapsed());
        }
        Some(answer)
    }

    /// Sets when a lane whose attempt `began` then is tried again: as the collector asked, which then holds for both
    /// lanes, else by the back-off, of which the time that went by in silence is a part.
    fn put_off(&mut self, lane: Lane, began: Instant, asked: Option<Duration>) {
        let (stopping, now) = (self.stopping(), Instant::now());
        let longest = if stopping { STOPPING_RETRY } else { Duration::MAX };
        let refused = &mut self.progress.refused;
        let pace = self.pace;
        let again = asked.map_or_else(
            || {
                let delay =
                    backoff(pace.first_retry, pace.max_retry.min(longest), refused[lane as usize].times, jitter());
                (began + delay).max(now + (pace.first_retry / 2).min(delay))
            },
            |asked| now + asked,
        );
        let firm = stopping || asked.is_some();
        refused[lane as usize] =
            Refused { times: refused[lane as usize].times.saturating_add(1), again: Some(again), firm };
        if asked.is_some() {
            for lane in refused {
                (lane.again, lane.firm) = (Some(again), true);
            }
        }
    }

    fn delivered(&mut self, batch: &Batch, payload: &Payload, partial: &Partial) {
        // A remark that refuses nothing is a warning too; said when they begin.
        let remarks = !partial.message.is_empty();
        let new = remarks && !self.progress.remarked;
        self.progress.remarked = remarks;
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
                "collector remarks"
            );
        }
        if counters.note(None) {
            tracing::info!(target = &*self.target, signal = self.signal.as_str(), "collector takes records again");
        }
    }

    fn failed(&self, batch: &Batch, reason: &str) {
        add(&self.counters().failed, batch.items);
        self.refused(reason);
    }

    /// Logged when the trouble begins, then only counted.
    fn refused(&self, reason: &str) {
        if self.counters().note(Some(reason)) {
            tracing::warn!(
                target = &*self.target,
                signal = self.signal.as_str(),
                why = reason,
                "collector does not take records"
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

/// Longest wait before a repeat while stopping: in five seconds a collector that restarts may still be met.
const STOPPING_RETRY: Duration = Duration::from_millis(250);
