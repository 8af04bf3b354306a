//! All receivers: turns notices into alerts, applies silences and hands them to one dispatcher for each receiver. Never
//! waits for a receiver.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Notice, Timestamp};
use tokio::sync::mpsc;

use super::alert::{Alert, AlertContext};
use super::dispatcher::Dispatcher;
use super::http_post::Post;
use super::notification_log::Notification;
use super::receiver::{Receiver, Verdict};
use super::receivers::{Alertmanager, DingTalk, Feishu, WeCom, Webhook};
use super::settings::{AlertSettings, NotifyError, ReceiverKind, WebhookSettings};
use super::silence::Silences;
use crate::platform::SelfMetrics;

/// Most batches of alerts queued for one dispatcher.
const MAX_QUEUED: usize = 256;

/// The running receivers.
pub struct Notifiers {
    context: AlertContext,
    dispatchers: Vec<mpsc::Sender<Arc<[Alert]>>>,
    silences: Arc<ArcSwap<Silences>>,
    meters: SelfMetrics,
}

impl Notifiers {
    /// Starts a dispatcher for each receiver. They end after this is dropped, once everything recorded was sent or
    /// given up.
    ///
    /// # Errors
    /// [`NotifyError`]; nothing was started then.
    pub fn start(context: AlertContext, meters: &SelfMetrics) -> Result<Self, NotifyError> {
        crate::platform::tls::install();
        let alerts = &context.alerts;
        let silences = Arc::new(ArcSwap::from_pointee(Silences::new(&alerts.silences)?));
        let posts: Vec<_> = alerts.webhooks.iter().map(Post::new).collect::<Result<_, _>>()?;
        let dispatchers = posts.into_iter().zip(&alerts.webhooks).map(|(post, settings)| {
            let (sender, receiver) = mpsc::channel(MAX_QUEUED);
            let dispatcher = Dispatcher::new(post, receiver_of(settings, &context)?, settings, meters);
            Ok((sender, receiver, dispatcher))
        });
        let dispatchers: Vec<_> = dispatchers.collect::<Result<_, NotifyError>>()?;
        let started = dispatchers.into_iter().map(|(sender, receiver, dispatcher)| {
            tokio::spawn(dispatcher.run(receiver));
            sender
        });
        Ok(Self { dispatchers: started.collect(), silences, meters: meters.clone(), context })
    }

    /// The silences, for a reload to replace.
    #[must_use]
    pub fn silences(&self) -> Arc<ArcSwap<Silences>> {
        Arc::clone(&self.silences)
    }

    /// Queues notices for every receiver; never waits. What finds no room is counted as shed.
    pub fn take(&self, notices: &[Notice]) {
        if self.dispatchers.is_empty() || notices.is_empty() {
            return;
        }
        let silences = self.silences.load();
        let all = notices.len();
        let alerts = notices.iter().map(|notice| Alert::of(&self.context, notice));
        // The end of an alert is sent even during a silence: it may have begun before it.
        let alerts: Arc<[Alert]> = alerts.filter(|alert| !alert.firing || !silences.cover(alert)).collect();
        self.meters.shed(ShedReason::Silenced, (all - alerts.len()) as u64);
        for dispatcher in self.dispatchers.iter().filter(|_| !alerts.is_empty()) {
            if dispatcher.try_send(Arc::clone(&alerts)).is_err() {
                self.meters.shed(ShedReason::WebhookQueue, alerts.len() as u64);
            }
        }
    }
}

/// Checks receivers and silences, including the files of secrets.
///
/// # Errors
/// The first [`NotifyError`].
pub(crate) fn check(alerts: &AlertSettings) -> Result<(), NotifyError> {
    crate::platform::tls::install();
    let context = AlertContext::default();
    Silences::new(&alerts.silences)?;
    alerts.webhooks.iter().try_for_each(|settings| {
        Post::new(settings)?;
        receiver_of(settings, &context).map(drop)
    })
}

/// Sends a receiver a test alert and its end, for `liveqos check --notify`.
///
/// # Errors
/// What the receiver answered, or why it could not be reached.
pub(crate) async fn try_once(settings: &WebhookSettings, context: &AlertContext, now: Timestamp) -> Result<(), String> {
    let post = Post::new(settings).map_err(|error| error.to_string())?;
    let receiver = receiver_of(settings, context).map_err(|error| error.to_string())?;
    for firing in [true, false] {
        let alert = Alert::test(context, firing, now);
        let notification = Notification::of_one(alert);
        match post.once(&*receiver, &notification, now).await {
            Verdict::Delivered => {}
            Verdict::Retry { why, .. } | Verdict::Refused(why) => return Err(why),
        }
        tokio::time::sleep(TEST_PAUSE).await;
    }
    Ok(())
}

/// The receiver of the configured kind.
fn receiver_of(settings: &WebhookSettings, context: &AlertContext) -> Result<Box<dyn Receiver>, NotifyError> {
    let page = context.page_url.clone();
    Ok(match settings.kind {
        ReceiverKind::Webhook => Box::new(Webhook { page }),
        ReceiverKind::Alertmanager => Box::new(Alertmanager { page }),
        ReceiverKind::Dingtalk => Box::new(DingTalk { secret: settings.secret()? }),
        ReceiverKind::Feishu => Box::new(Feishu { secret: settings.secret()? }),
        ReceiverKind::Wecom => Box::new(WeCom),
    })
}

/// Between the test alert and its end.
const TEST_PAUSE: Duration = Duration::from_secs(1);
