//! Alertmanager's API v2, `POST /api/v2/alerts`: every minute all firing alerts, with an end time in the future so that
//! they expire when this node dies, and for a quarter of an hour the resolved ones. Grouping, inhibition and routing
//! are left to Alertmanager.

use std::time::Duration;

use liveqos_core::model::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};

use crate::notify::notification_log::{Notification, RESEND_INTERVAL, SendMode};
use crate::notify::receiver::{DeliveryPolicy, Receiver, Verdict};
use crate::platform::rfc3339;

/// Alertmanager.
pub(crate) struct Alertmanager {
    /// URL of the node's own page.
    pub(crate) page: String,
}

impl Receiver for Alertmanager {
    fn policy(&self) -> DeliveryPolicy {
        DeliveryPolicy { send_mode: SendMode::State, gather: Duration::from_millis(250), max_per_minute: 240 }
    }

    fn request(&self, mut url: Url, notification: &Notification, now: Timestamp) -> (Url, Value) {
        let root = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{root}/api/v2/alerts"));
        let alerts = notification.groups.iter().flat_map(|group| &group.alerts).map(|alert| {
            let end = if alert.firing { now + RESEND_INTERVAL * EXPIRES_AFTER } else { alert.at };
            json!({
                "labels": alert.labels, "annotations": alert.annotations, "generatorURL": self.page,
                "startsAt": rfc3339::text(alert.started_at), "endsAt": rfc3339::text(end),
            })
        });
        (url, alerts.collect())
    }

    fn verdict(&self, _: &[u8]) -> Verdict {
        Verdict::Delivered
    }
}

/// Missed posts after which an alert expires.
const EXPIRES_AFTER: u32 = 4;
