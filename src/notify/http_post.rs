//! One HTTP POST to a receiver and the meaning of its status: no answer, 408, 429 and 5xx are retried, other errors are
//! final. The URL's path never appears in a message, because chat robots keep their secret in it.

use std::time::Duration;

use liveqos_core::model::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{StatusCode, Url};

use super::notification_log::Notification;
use super::receiver::{Receiver, Verdict};
use super::settings::{NotifyError, WebhookSettings};
use crate::platform::error_chain::chain;
use crate::platform::retry_after::retry_after;

/// The HTTP client, URL and token of a receiver.
pub(super) struct Post {
    client: reqwest::Client,
    url: Url,
    token: Option<HeaderValue>,
    name: String,
}

impl Post {
    /// The client of a receiver; reads its secrets from their files.
    ///
    /// # Errors
    /// [`NotifyError`] for a bad URL or an unreadable file.
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self, NotifyError> {
        let kind = settings.kind.as_str();
        let text = match &settings.url_file {
            Some(path) => settings.read(path)?,
            None => settings.url.clone(),
        };
        let bad_url = |detail: String| NotifyError::Url { kind, detail };
        let url = Url::parse(&text).map_err(|error| bad_url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad_url(format!("its scheme is {}", url.scheme())));
        }
        let token = settings.token_file.as_ref().map(|path| {
            let bad = |error| NotifyError::File { path: path.clone(), kind, error: std::io::Error::other(error) };
            let mut header = HeaderValue::from_str(&format!("Bearer {}", settings.read(path)?)).map_err(bad)?;
            header.set_sensitive(true);
            Ok(header)
        });
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().map_err(NotifyError::Client)?;
        Ok(Self { client, url, token: token.transpose()?, name: settings.shown() })
    }

    /// Kind and host, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Posts `notification` once.
    pub(super) async fn once(&self, receiver: &dyn Receiver, notification: &Notification, now: Timestamp) -> Verdict {
        let (url, body) = receiver.request(self.url.clone(), notification, now);
        let mut request = self.client.post(url).json(&body);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Verdict::Retry { after: None, why: chain(&error.without_url()) },
        };
        let status = answer.status();
        let after = retry_after(answer.headers()).map(|after| after.min(LONGEST_AFTER));
        let body = body_of(answer).await;
        if status.is_success() {
            return receiver.verdict(&body);
        }
        let why = format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(MAX_SHOWN)]).trim());
        if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
            return Verdict::Retry { after, why };
        }
        Verdict::Refused(why)
    }
}

/// The first bytes of the answer's body.
async fn body_of(mut answer: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        body.extend_from_slice(&part);
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    body
}

const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause granted to a receiver.
const LONGEST_AFTER: Duration = Duration::from_mins(5);
/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 16 * 1024;
/// Most bytes of an answer that are logged.
const MAX_SHOWN: usize = 200;
