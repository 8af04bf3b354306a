//! The generic webhook: the body that Alertmanager posts, version 4, so that receivers of its kind work unchanged.

use std::time::Duration;

use liveqos_core::model::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};

use crate::notify::alert::{Alert, Pairs};
use crate::notify::notification_log::{Group, Notification, SendMode};
use crate::notify::receiver::{DeliveryPolicy, Receiver, Verdict};
use crate::platform::rfc3339;

/// The channel.
pub(crate) struct Webhook {
    /// The node's own page.
    pub(crate) page: String,
}

impl Receiver for Webhook {
    fn manner(&self) -> DeliveryPolicy {
        DeliveryPolicy { telling: SendMode::ChangesByGroup, gather: Duration::ZERO, a_minute: 600 }
    }

    fn request(&self, url: Url, mail: &Notification, _: Timestamp) -> (Url, Value) {
        (url, mail.groups.first().map_or(Value::Null, |group| self.body(group)))
    }

    fn verdict(&self, _: &[u8]) -> Verdict {
        Verdict::Delivered
    }
}

impl Webhook {
    fn body(&self, group: &Group) -> Value {
        let status = if group.firing { "firing" } else { "resolved" };
        let (name, cause) = (group.label("alertname"), group.label("cause"));
        json!({
            "version": "4", "groupKey": format!("{{}}:{{alertname=\"{name}\", cause=\"{cause}\"}}"), "truncatedAlerts": 0,
            "status": status, "receiver": "liveqos", "externalURL": self.page,
            "groupLabels": { "alertname": name, "cause": cause },
            "commonLabels": common(&group.letters, |letter| &letter.labels),
            "commonAnnotations": common(&group.letters, |letter| &letter.annotations),
            "alerts": group.letters.iter().map(|letter| self.alert(letter)).collect::<Vec<_>>(),
        })
    }

    fn alert(&self, letter: &Alert) -> Value {
        json!({
            "status": if letter.firing { "firing" } else { "resolved" },
            "labels": letter.labels, "annotations": letter.annotations, "generatorURL": self.page,
            "startsAt": rfc3339::text(letter.started_at), "fingerprint": letter.key,
            "endsAt": if letter.firing { NEVER.to_owned() } else { rfc3339::text(letter.at) },
        })
    }
}

/// What all have alike.
fn common(letters: &[Alert], pairs: impl Fn(&Alert) -> &Pairs) -> Pairs {
    let mut common = letters.first().map(|letter| pairs(letter).clone()).unwrap_or_default();
    common.retain(|name, value| letters.iter().all(|letter| pairs(letter).get(name) == Some(value)));
    common
}

/// What Alertmanager writes for an alert that has not ended.
const NEVER: &str = "0001-01-01T00:00:00Z";
