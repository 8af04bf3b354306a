//! Alertmanager's API v2, `POST /api/v2/alerts`: all that holds each minute with an end in the future, so that it
//! expires when this node dies, and what ended for a quarter of an hour. Grouping, inhibition and routing are
//! Alertmanager's.

use std::time::Duration;

use liveqos_core::model::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};

use crate::notify::notification_log::{AGAIN, Notification, SendMode};
use crate::notify::receiver::{DeliveryPolicy, Receiver, Verdict};
use crate::platform::rfc3339;

/// The channel.
pub(crate) struct Alertmanager {
    /// The node's own page.
    pub(crate) page: String,
}

impl Receiver for Alertmanager {
    fn manner(&self) -> DeliveryPolicy {
        DeliveryPolicy { telling: SendMode::State, gather: Duration::from_millis(250), a_minute: 240 }
    }

    fn request(&self, mut url: Url, mail: &Notification, now: Timestamp) -> (Url, Value) {
        let root = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{root}/api/v2/alerts"));
        let alerts = mail.groups.iter().flat_map(|group| &group.letters).map(|letter| {
            let end = if letter.firing { now + AGAIN * EXPIRES_AFTER } else { letter.at };
            json!({
                "labels": letter.labels, "annotations": letter.annotations, "generatorURL": self.page,
                "startsAt": rfc3339::text(letter.started_at), "endsAt": rfc3339::text(end),
            })
        });
        (url, alerts.collect())
    }

    fn verdict(&self, _: &[u8]) -> Verdict {
        Verdict::Delivered
    }
}

/// Missed tellings until an alert expires.
const EXPIRES_AFTER: u32 = 4;
