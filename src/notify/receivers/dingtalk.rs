//! A DingTalk group robot: markdown, signed in the query (HMAC-SHA-256 over time and secret). It answers every request
//! with status 200 and gives the outcome in `errcode`; after more than 20 messages in a minute it blocks for ten.

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

/// A DingTalk robot.
pub(crate) struct DingTalk {
    /// The signing secret, where the robot requires one.
    pub(crate) secret: Option<String>,
}

impl Receiver for DingTalk {
    fn policy(&self) -> DeliveryPolicy {
        DeliveryPolicy { send_mode: SendMode::Changes, gather: Duration::from_secs(5), max_per_minute: 15 }
    }

    fn request(&self, mut url: Url, notification: &Notification, now: Timestamp) -> (Url, Value) {
        if let Some(secret) = &self.secret {
            let millis = now.millis();
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let sign = STANDARD.encode(hmac::sign(&key, format!("{millis}\n{secret}").as_bytes()));
            url.query_pairs_mut().append_pair("timestamp", &millis.to_string()).append_pair("sign", &sign);
        }
        let text = chat_text::text(notification, self, MAX_TEXT);
        let body =
            json!({ "msgtype": "markdown", "markdown": { "title": chat_text::title(notification), "text": text } });
        (url, body)
    }

    fn verdict(&self, body: &[u8]) -> Verdict {
        robot_verdict(body, "errcode", "errmsg", &[(130_101, BLOCKED), (-1, Duration::from_secs(5))])
    }
}

impl Markup for DingTalk {
    fn heading(&self, _: &Group, text: &str) -> String {
        format!("#### {text}\n")
    }
}

/// How long the robot blocks after too many messages.
const BLOCKED: Duration = Duration::from_mins(10);
/// Longest text in bytes; the robot accepts 20,000, but nobody reads that much.
const MAX_TEXT: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::alert::{Alert, AlertContext};

    #[test]
    fn the_signature_is_the_documented_one() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let notification = Notification::of_one(Alert::test(&AlertContext::default(), true, now));
        let robot = DingTalk { secret: Some("SECabc".to_owned()) };
        let url = Url::parse("https://robot.example/robot/send?access_token=T").expect("a URL");
        let (url, _) = robot.request(url, &notification, now);
        // printf '1700000000000\nSECabc' | openssl dgst -sha256 -hmac SECabc -binary | base64
        let sign = url.query_pairs().find(|(name, _)| name == "sign").map(|(_, value)| value.into_owned());
        assert_eq!(sign.as_deref(), Some("jcUpW0QmtKduN03n4JqQ0PBosVjqnM8gU7fIIvsDmCM="));
    }

    #[test]
    fn answers_are_judged_by_their_code() {
        let robot = DingTalk { secret: None };
        assert_eq!(robot.verdict(br#"{"errcode":0,"errmsg":"ok"}"#), Verdict::Delivered);
        let blocked = robot.verdict(br#"{"errcode":130101,"errmsg":"send too fast"}"#);
        assert!(matches!(blocked, Verdict::Retry { after: Some(BLOCKED), .. }), "{blocked:?}");
        assert!(matches!(robot.verdict(br#"{"errcode":310000,"errmsg":"sign not match"}"#), Verdict::Refused(_)));
        assert!(matches!(robot.verdict(b"<html>"), Verdict::Refused(_)));
    }
}
