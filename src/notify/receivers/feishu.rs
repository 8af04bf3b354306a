//! A Feishu or Lark group robot: an interactive card, signed in the body (HMAC-SHA-256 of an empty text, keyed by time
//! and secret). It answers most requests with status 200 and gives the outcome in `code`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use liveqos_core::model::Timestamp;
use reqwest::Url;
use ring::hmac;
use serde_json::{Value, json};

use crate::notify::chat_text::{self, Markup};
use crate::notify::notification_log::{Group, Notification, SendMode};
use crate::notify::receiver::{DeliveryPolicy, Receiver, Verdict, robot_verdict};

/// A Feishu or Lark robot.
pub(crate) struct Feishu {
    /// The signing secret, where the robot requires one.
    pub(crate) secret: Option<String>,
}

impl Receiver for Feishu {
    fn policy(&self) -> DeliveryPolicy {
        DeliveryPolicy { send_mode: SendMode::Changes, gather: Duration::from_secs(5), max_per_minute: 60 }
    }

    fn request(&self, url: Url, notification: &Notification, now: Timestamp) -> (Url, Value) {
        let colour = match chat_text::highest_severity(notification) {
            Some("critical") => "red",
            Some(_) => "orange",
            None => "green",
        };
        let text = chat_text::text(notification, self, MAX_TEXT);
        let mut body = json!({
            "msg_type": "interactive",
            "card": {
                "header": { "title": { "tag": "plain_text", "content": chat_text::title(notification) }, "template": colour },
                "elements": [{ "tag": "div", "text": { "tag": "lark_md", "content": text } }],
            },
        });
        if let Some(secret) = &self.secret {
            let seconds = now.millis() / 1_000;
            let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{seconds}\n{secret}").as_bytes());
            body["timestamp"] = json!(seconds.to_string());
            body["sign"] = json!(STANDARD.encode(hmac::sign(&key, b"")));
        }
        (url, body)
    }

    fn verdict(&self, body: &[u8]) -> Verdict {
        robot_verdict(body, "code", "msg", &[(11_232, Duration::from_secs(5))])
    }
}

impl Markup for Feishu {
    fn heading(&self, _: &Group, text: &str) -> String {
        format!("**{text}**")
    }
}

/// Longest text in bytes; the robot accepts bodies of 20 KB, but nobody reads that much.
const MAX_TEXT: usize = 6_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::alert::{Alert, AlertContext};

    #[test]
    fn the_signature_is_the_documented_one() {
        let now = Timestamp::from_secs(1_700_000_000);
        let notification = Notification::of_one(Alert::test(&AlertContext::default(), false, now));
        let robot = Feishu { secret: Some("SECabc".to_owned()) };
        let (_, body) = robot.request(Url::parse("https://robot.example/hook/T").expect("a URL"), &notification, now);
        assert_eq!(
            (&body["timestamp"], &body["sign"]),
            (&json!("1700000000"), &json!("XprR1de+0SSBnwWyU/4k6x2TL+Q2SJlM5NNEdAv7MWg="))
        );
        assert_eq!(body["card"]["header"]["template"], "green");
    }

    #[test]
    fn answers_are_judged_by_their_code() {
        let robot = Feishu { secret: None };
        assert_eq!(robot.verdict(br#"{"code":0,"msg":"success","data":{}}"#), Verdict::Delivered);
        assert!(matches!(robot.verdict(br#"{"code":11232,"msg":"frequency limited"}"#), Verdict::Retry { .. }));
        assert!(matches!(robot.verdict(br#"{"code":19021,"msg":"sign match fail"}"#), Verdict::Refused(_)));
    }
}
