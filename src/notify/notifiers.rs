//! Notices to people and their programs. Decides who is told of what: each receiver has its own desk with its own
//! queue, grouping, pace and retries; refuses to wait for any of them, and to tell what a silence covers.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Notice, Timestamp};
use tokio::sync::mpsc;

use super::alert::{Alert, AlertContext};
use super::dispatcher::Dispatcher;
use super::http_post::Post;
use super::receiver::Receiver;
use super::receivers::{alertmanager, dingtalk, feishu, webhook, wecom};
use super::settings::{AlertSettings, NotifyError, ReceiverKind, WebhookSettings};
use super::silence::Silences;
use super::{notification_log, receiver};
use crate::platform::SelfMetrics;

/// Batches of notices waiting for one receiver's desk.
pub(super) const MAX_WAITING: usize = 256;

/// All receivers.
pub struct Notifiers {
    letterhead: AlertContext,
    desks: Vec<mpsc::Sender<Arc<[Alert]>>>,
    silences: Arc<ArcSwap<Silences>>,
    meters: SelfMetrics,
}

impl Notifiers {
    /// Starts a desk for each receiver; they end when this is dropped and what they hold is told or given up.
    ///
    /// # Errors
    /// [`NotifyError`], before anything is started.
    pub fn start(letterhead: AlertContext, meters: &SelfMetrics) -> Result<Self, NotifyError> {
        crate::platform::tls::install();
        let alerts = &letterhead.alerts;
        let silences = Arc::new(ArcSwap::from_pointee(Silences::new(&alerts.silences)?));
        let posts: Vec<_> = alerts.webhooks.iter().map(Post::new).collect::<Result<_, _>>()?;
        let desks = posts.into_iter().zip(&alerts.webhooks).map(|(post, settings)| {
            let (sender, receiver) = mpsc::channel(MAX_WAITING);
            let desk = Dispatcher::new(post, channel_of(settings, &letterhead)?, settings, meters);
            Ok((sender, receiver, desk))
        });
        let desks: Vec<_> = desks.collect::<Result<_, NotifyError>>()?;
        let started = desks.into_iter().map(|(sender, receiver, desk)| {
            tokio::spawn(desk.run(receiver));
            sender
        });
        Ok(Self { desks: started.collect(), silences, meters: meters.clone(), letterhead })
    }

    /// The silences, to be exchanged when the configuration is read again.
    #[must_use]
    pub fn silences(&self) -> Arc<ArcSwap<Silences>> {
        Arc::clone(&self.silences)
    }

    /// Hands notices on; never waits.
    pub fn take(&self, notices: &[Notice]) {
        if self.desks.is_empty() || notices.is_empty() {
            return;
        }
        let silences = self.silences.load();
        let all = notices.len();
        let letters = notices.iter().map(|notice| Alert::of(&self.letterhead, notice));
        // What ended is told even in a silence: it may have begun before.
        let letters: Arc<[Alert]> = letters.filter(|letter| !letter.firing || !silences.cover(letter)).collect();
        self.meters.shed(ShedReason::Silenced, (all - letters.len()) as u64);
        for desk in self.desks.iter().filter(|_| !letters.is_empty()) {
            if desk.try_send(Arc::clone(&letters)).is_err() {
                self.meters.shed(ShedReason::WebhookQueue, letters.len() as u64);
            }
        }
    }
}

/// Checks receivers and silences, and reads the receivers' secrets once.
///
/// # Errors
/// [`NotifyError`] of the first that is wrong.
pub(crate) fn check(alerts: &AlertSettings) -> Result<(), NotifyError> {
    crate::platform::tls::install();
    let letterhead = AlertContext::default();
    Silences::new(&alerts.silences)?;
    alerts.webhooks.iter().try_for_each(|settings| {
        Post::new(settings)?;
        channel_of(settings, &letterhead).map(drop)
    })
}

/// Tells a receiver of an alert that is called a test, and that it ended, once each.
///
/// # Errors
/// What the receiver answered, or why it could not be asked.
pub(crate) async fn try_once(
    settings: &WebhookSettings,
    letterhead: &AlertContext,
    now: Timestamp,
) -> Result<(), String> {
    let post = Post::new(settings).map_err(|error| error.to_string())?;
    let channel = channel_of(settings, letterhead).map_err(|error| error.to_string())?;
    for firing in [true, false] {
        let letter = Alert::test(letterhead, firing, now);
        let mail = notification_log::Notification::of_one(letter);
        match post.once(&*channel, &mail, now).await {
            receiver::Verdict::Delivered => {}
            receiver::Verdict::Again { why, .. } | receiver::Verdict::Refused(why) => return Err(why),
        }
        tokio::time::sleep(TEST_PAUSE).await;
    }
    Ok(())
}

/// Every kind of receiver.
fn channel_of(settings: &WebhookSettings, letterhead: &AlertContext) -> Result<Box<dyn Receiver>, NotifyError> {
    let page = letterhead.page_url.clone();
    Ok(match settings.kind {
        ReceiverKind::Webhook => Box::new(webhook::Webhook { page }),
        ReceiverKind::Alertmanager => Box::new(alertmanager::Alertmanager { page }),
        ReceiverKind::Dingtalk => Box::new(dingtalk::DingTalk { secret: settings.secret()? }),
        ReceiverKind::Feishu => Box::new(feishu::Feishu { secret: settings.secret()? }),
        ReceiverKind::Wecom => Box::new(wecom::WeCom),
    })
}

const TEST_PAUSE: Duration = Duration::from_secs(1);
