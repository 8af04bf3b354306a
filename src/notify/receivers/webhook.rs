//! The generic webhook: the JSON body of Alertmanager webhooks, version 4, so that its receivers work unchanged.

use std::time::Duration;

use liveqos_core::model::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};

use crate::notify::alert::{Alert, Pairs};
use crate::notify::notification_log::{Group, Notification, SendMode};
use crate::notify::receiver::{DeliveryPolicy, Receiver, Verdict};
use crate::platform::rfc3339;

/// The generic webhook.
pub(crate) struct Webhook {
    /// URL of the node's own page.
    pub(crate) page: String,
}

impl Receiver for Webhook {
    fn policy(&self) -> DeliveryPolicy {
        DeliveryPolicy { send_mode: SendMode::ChangesByGroup, gather: Duration::ZERO, max_per_minute: 600 }
    }

    fn request(&self, url: Url, notification: &Notification, _: Timestamp) -> (Url, Value) {
        (url, notification.groups.first().map_or(Value::Null, |group| self.body(group)))
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
            "commonLabels": common(&group.alerts, |alert| &alert.labels),
            "commonAnnotations": common(&group.alerts, |alert| &alert.annotations),
            "alerts": group.alerts.iter().map(|alert| self.alert(alert)).collect::<Vec<_>>(),
        })
    }

    fn alert(&self, alert: &Alert) -> Value {
        json!({
            "status": if alert.firing { "firing" } else { "resolved" },
            "labels": alert.labels, "annotations": alert.annotations, "generatorURL": self.page,
            "startsAt": rfc3339::text(alert.started_at), "fingerprint": alert.key,
            "endsAt": if alert.firing { NEVER.to_owned() } else { rfc3339::text(alert.at) },
        })
    }
}

/// The pairs that all alerts share.
fn common(alerts: &[Alert], pairs: impl Fn(&Alert) -> &Pairs) -> Pairs {
    let mut common = alerts.first().map(|alert| pairs(alert).clone()).unwrap_or_default();
    common.retain(|name, value| alerts.iter().all(|alert| pairs(alert).get(name) == Some(value)));
    common
}

/// The end time that Alertmanager writes for a firing alert.
const NEVER: &str = "0001-01-01T00:00:00Z";
