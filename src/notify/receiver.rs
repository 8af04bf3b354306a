//! What tells receivers apart: the body they take, the answer they give, the pace they bear. A new kind of receiver is
//! one file with this trait and its line in [`super::notifiers::channel_of`].

use std::time::Duration;

use liveqos_core::model::Timestamp;
use reqwest::Url;
use serde_json::Value;

use super::notification_log::{Notification, SendMode};

/// A kind of receiver.
pub(super) trait Receiver: Send + Sync {
    /// How it wants to be told.
    fn manner(&self) -> DeliveryPolicy;

    /// Where and what to post of `mail`, beginning from the configured URL.
    fn request(&self, url: Url, mail: &Notification, now: Timestamp) -> (Url, Value);

    /// What the body of an answer with a status of success says.
    fn verdict(&self, body: &[u8]) -> Verdict;
}

/// How a receiver wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryPolicy {
    /// What a mail holds.
    pub(super) telling: SendMode,
    /// How long changes are gathered after a mail before the next; the first goes at once.
    pub(super) gather: Duration,
    /// Most mails in any minute.
    pub(super) a_minute: usize,
}

/// What became of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was taken.
    Delivered,
    /// It may be taken later.
    Again {
        /// The shortest pause, where the receiver named one.
        after: Option<Duration>,
        /// Why not now.
        why: String,
    },
    /// It will never be taken.
    Refused(String),
}

/// The answer of a chat robot: `code` 0 is success; of the rest, those in `too_fast` ask for a pause.
pub(super) fn robot_verdict(body: &[u8], code: &str, text: &str, too_fast: &[(i64, Duration)]) -> Verdict {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let number = answer.as_ref().and_then(|answer| answer[code].as_i64());
    match (number, answer) {
        (Some(0), _) => Verdict::Delivered,
        (Some(number), Some(answer)) => {
            let why = format!("{code} {number}: {}", answer[text].as_str().unwrap_or("no text"));
            match too_fast.iter().find(|(known, _)| *known == number) {
                Some((_, after)) => Verdict::Again { after: Some(*after), why },
                None => Verdict::Refused(why),
            }
        }
        _ => Verdict::Refused(format!("its answer has no {code}; is this a robot's URL?")),
    }
}
