//! A `WeCom` group robot: markdown of at most 4,096 bytes; its URL is its secret. It answers every request with status
//! 200 and gives the outcome in `errcode`.

use std::time::Duration;

use liveqos_core::model::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};

use crate::notify::chat_text::{self, Markup};
use crate::notify::notification_log::{Group, Notification, SendMode};
use crate::notify::receiver::{DeliveryPolicy, Receiver, Verdict, robot_verdict};

/// A `WeCom` robot.
pub(crate) struct WeCom;

impl Receiver for WeCom {
    fn policy(&self) -> DeliveryPolicy {
        DeliveryPolicy { send_mode: SendMode::Changes, gather: Duration::from_secs(5), max_per_minute: 15 }
    }

    fn request(&self, url: Url, notification: &Notification, _: Timestamp) -> (Url, Value) {
        (
            url,
            json!({ "msgtype": "markdown", "markdown": { "content": chat_text::text(notification, self, MAX_TEXT) } }),
        )
    }

    fn verdict(&self, body: &[u8]) -> Verdict {
        robot_verdict(body, "errcode", "errmsg", &[(45_009, Duration::from_mins(1)), (-1, Duration::from_secs(5))])
    }
}

impl Markup for WeCom {
    fn heading(&self, group: &Group, text: &str) -> String {
        let colour = if group.firing { "warning" } else { "info" };
        format!("<font color=\"{colour}\">{text}</font>")
    }
}

/// Longest text in bytes, a limit of the robot.
const MAX_TEXT: usize = 4_096;
