//! The work for one receiver: takes letters, keeps its book, posts at its pace, tries again what was not taken. Decides
//! when; refuses to hold more than its bounds and counts what that cost.

use liveqos_core::metrics::ShedReason;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::alert::Alert;
use super::http_post::Post;
use super::notification_log::NotificationLog;
use super::receiver::{DeliveryPolicy, Receiver, Verdict};
use super::settings::WebhookSettings;
use crate::platform::backoff::{backoff, jitter};
use crate::platform::{SelfMetrics, clock};

/// One receiver's desk.
pub(super) struct Dispatcher {
    post: Post,
    channel: Box<dyn Receiver>,
    manner: DeliveryPolicy,
    critical_only: bool,
    book: NotificationLog,
    meters: SelfMetrics,
    /// When the mails of the last minute left.
    left: VecDeque<Instant>,
    /// Not before, and how often it was tried in vain.
    retry: Option<(Instant, u32)>,
}

impl Dispatcher {
    pub(super) fn new(
        post: Post,
        channel: Box<dyn Receiver>,
        settings: &WebhookSettings,
        meters: &SelfMetrics,
    ) -> Self {
        let manner = channel.manner();
        Self {
            post,
            channel,
            manner,
            critical_only: settings.critical_only,
            book: NotificationLog::new(manner.telling, settings.firing_only),
            meters: meters.clone(),
            left: VecDeque::new(),
            retry: None,
        }
    }

    /// Works until no more letters can come and all were told.
    pub(super) async fn run(mut self, mut letters: mpsc::Receiver<Arc<[Alert]>>) {
        let mut open = true;
        while open || self.book.has_untold() {
            let due = self.due();
            tokio::select! {
                batch = letters.recv(), if open => match batch {
                    Some(batch) => self.take(&batch),
                    None => open = false,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.send().await,
            }
        }
    }

    fn take(&mut self, letters: &[Alert]) {
        let now = Instant::now();
        let told = letters.iter().filter(|letter| !self.critical_only || letter.label("severity") == "critical");
        let refused = told.filter(|letter| !self.book.take(letter, now)).count();
        self.meters.shed(ShedReason::WebhookStanding, refused as u64);
    }

    fn due(&self) -> Option<Instant> {
        let wanted = self.book.wanted(self.left.back().copied(), self.manner.gather)?;
        let full = self.left.len() >= self.manner.a_minute;
        let paced = self.left.front().filter(|_| full).map(|first| *first + MINUTE);
        [Some(wanted), paced, self.retry.map(|(at, _)| at)].into_iter().flatten().max()
    }

    async fn send(&mut self) {
        let now = Instant::now();
        self.meters.shed(ShedReason::WebhookRefused, self.book.give_up(now));
        while self.left.front().is_some_and(|first| now.duration_since(*first) >= MINUTE) {
            self.left.pop_front();
        }
        let Some(mail) = self.book.mail() else {
            return;
        };
        self.left.push_back(now);
        match self.post.once(&*self.channel, &mail, clock::now()).await {
            Verdict::Delivered => {
                self.book.delivered(&mail);
                self.retry = None;
            }
            Verdict::Again { after, why } => {
                tracing::debug!(receiver = self.post.name(), "trying again: {why}");
                let tried = self.retry.map_or(0, |(_, tried)| tried);
                let pause = after.unwrap_or_else(|| backoff(FIRST_PAUSE, LONGEST_PAUSE, tried, jitter()));
                self.retry = Some((Instant::now() + pause, tried.saturating_add(1)));
            }
            Verdict::Refused(why) => {
                let lost = self.book.refused(&mail);
                self.retry = None;
                self.meters.shed(ShedReason::WebhookRefused, lost);
                tracing::warn!(receiver = self.post.name(), notices = lost, "giving up notices: {why}");
            }
        }
    }
}

const MINUTE: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
