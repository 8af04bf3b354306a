//! The trait of a receiver: the request it takes, the meaning of its answer, its pace. A new kind of receiver is one
//! file in [`super::receivers`] and its line in `receiver_of` of [`super::notifiers`].

use std::time::Duration;

use liveqos_core::model::Timestamp;
use reqwest::Url;
use serde_json::Value;

use super::notification_log::{Notification, SendMode};

/// A kind of receiver.
pub(super) trait Receiver: Send + Sync {
    /// When and what to send.
    fn policy(&self) -> DeliveryPolicy;

    /// URL and JSON body of the request for `notification`; `url` is the configured one.
    fn request(&self, url: Url, notification: &Notification, now: Timestamp) -> (Url, Value);

    /// The meaning of an answer with a success status, by its body.
    fn verdict(&self, body: &[u8]) -> Verdict;
}

/// When a receiver is notified, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryPolicy {
    /// What a notification contains.
    pub(super) send_mode: SendMode,
    /// How long changes are gathered after a notification before the next one; the first is sent at once.
    pub(super) gather: Duration,
    /// Most notifications in any 60 s.
    pub(super) max_per_minute: usize,
}

/// The outcome of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The receiver accepted it.
    Delivered,
    /// It may be accepted later.
    Retry {
        /// The shortest pause, where the receiver asked for one.
        after: Option<Duration>,
        /// Why it was not accepted.
        why: String,
    },
    /// It will never be accepted, and why.
    Refused(String),
}

/// The meaning of a chat robot's answer: in its field `code` 0 is success, the numbers of `too_fast` ask for a pause,
/// and any other is final.
pub(super) fn robot_verdict(body: &[u8], code: &str, text: &str, too_fast: &[(i64, Duration)]) -> Verdict {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let number = answer.as_ref().and_then(|answer| answer[code].as_i64());
    match (number, answer) {
        (Some(0), _) => Verdict::Delivered,
        (Some(number), Some(answer)) => {
            let why = format!("{code} {number}: {}", answer[text].as_str().unwrap_or("no text"));
            match too_fast.iter().find(|(known, _)| *known == number) {
                Some((_, after)) => Verdict::Retry { after: Some(*after), why },
                None => Verdict::Refused(why),
            }
        }
        _ => Verdict::Refused(format!("its answer has no {code}; is this a robot's URL?")),
    }
}
