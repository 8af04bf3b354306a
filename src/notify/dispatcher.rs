//! The task of one receiver: records alerts in its notification log, posts at its pace, and repeats what failed. What
//! exceeds a bound is dropped and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use liveqos_core::metrics::ShedReason;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::alert::Alert;
use super::http_post::Post;
use super::notification_log::NotificationLog;
use super::receiver::{DeliveryPolicy, Receiver, Verdict};
use super::settings::WebhookSettings;
use crate::platform::backoff::{backoff, jitter};
use crate::platform::{SelfMetrics, clock};

/// Delivers notifications to one receiver.
pub(super) struct Dispatcher {
    post: Post,
    receiver: Box<dyn Receiver>,
    policy: DeliveryPolicy,
    critical_only: bool,
    log: NotificationLog,
    meters: SelfMetrics,
    /// When the notifications of the last minute were posted.
    sent: VecDeque<Instant>,
    /// After a failure: the earliest time of the next attempt, and the number of failed attempts.
    retry: Option<(Instant, u32)>,
}

impl Dispatcher {
    pub(super) fn new(
        post: Post,
        receiver: Box<dyn Receiver>,
        settings: &WebhookSettings,
        meters: &SelfMetrics,
    ) -> Self {
        let policy = receiver.policy();
        Self {
            post,
            receiver,
            policy,
            critical_only: settings.critical_only,
            log: NotificationLog::new(policy.send_mode, settings.firing_only),
            meters: meters.clone(),
            sent: VecDeque::new(),
            retry: None,
        }
    }

    /// Runs until the queue of alerts is closed and everything recorded was sent or given up.
    pub(super) async fn run(mut self, mut alerts: mpsc::Receiver<Arc<[Alert]>>) {
        let mut open = true;
        while open || self.log.has_pending() {
            let due = self.due();
            tokio::select! {
                batch = alerts.recv(), if open => match batch {
                    Some(batch) => self.record(&batch),
                    None => open = false,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.send().await,
            }
        }
    }

    fn record(&mut self, alerts: &[Alert]) {
        let now = Instant::now();
        let wanted = alerts.iter().filter(|alert| !self.critical_only || alert.label("severity") == "critical");
        let refused = wanted.filter(|alert| !self.log.record(alert, now)).count();
        self.meters.shed(ShedReason::WebhookStanding, refused as u64);
    }

    /// When the next notification may be sent; `None` while nothing is pending.
    fn due(&self) -> Option<Instant> {
        let wanted = self.log.next_at(self.sent.back().copied(), self.policy.gather)?;
        let full = self.sent.len() >= self.policy.max_per_minute;
        let paced = self.sent.front().filter(|_| full).map(|first| *first + MINUTE);
        [Some(wanted), paced, self.retry.map(|(at, _)| at)].into_iter().flatten().max()
    }

    async fn send(&mut self) {
        let now = Instant::now();
        self.meters.shed(ShedReason::WebhookRefused, self.log.give_up(now));
        while self.sent.front().is_some_and(|first| now.duration_since(*first) >= MINUTE) {
            self.sent.pop_front();
        }
        let Some(notification) = self.log.next() else {
            return;
        };
        self.sent.push_back(now);
        match self.post.once(&*self.receiver, &notification, clock::now()).await {
            Verdict::Delivered => {
                self.log.delivered(&notification);
                self.retry = None;
            }
            Verdict::Retry { after, why } => {
                tracing::debug!(receiver = self.post.name(), "trying again: {why}");
                let failures = self.retry.map_or(0, |(_, failures)| failures);
                let pause = after.unwrap_or_else(|| backoff(FIRST_PAUSE, LONGEST_PAUSE, failures, jitter()));
                self.retry = Some((Instant::now() + pause, failures.saturating_add(1)));
            }
            Verdict::Refused(why) => {
                let lost = self.log.refused(&notification);
                self.retry = None;
                self.meters.shed(ShedReason::WebhookRefused, lost);
                tracing::warn!(receiver = self.post.name(), notices = lost, "alerts dropped: {why}");
            }
        }
    }
}

const MINUTE: Duration = Duration::from_mins(1);
/// The first pause after a failed attempt, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
