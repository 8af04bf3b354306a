//! Notices to webhooks, in the body that Alertmanager posts (version 4), so that receivers of its kind work unchanged. Decides what is
//! tried again (no answer, 429, 5xx) and for how long; refuses to wait: each receiver has its own bounded queue, the oldest dropped
//! and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use liveqos_core::notice::{Notice, NoticeState, Subject};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::config::{AlertSettings, WebhookSettings};
use crate::meters::Meters;
use crate::otlp::ids;
use crate::rfc3339;

/// Notices waiting for one receiver.
pub const MAX_WAITING: usize = 1_000;

/// A notice older than this is no longer news: it is given up and counted.
pub const GIVE_UP: Duration = Duration::from_mins(10);

/// The links and names that notices carry.
#[derive(Clone, Debug, Default)]
pub struct Letterhead {
    /// The node.
    pub node: String,
    /// Its region.
    pub region: String,
    /// Templates of links.
    pub alerts: AlertSettings,
    /// The node's own page.
    pub page_url: String,
}

/// All receivers.
pub struct Webhooks {
    letterhead: Letterhead,
    receivers: Vec<mpsc::Sender<Arc<Value>>>,
    meters: Meters,
}

/// Why a receiver cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Its URL is none.
    #[error("alerts.webhooks: \"{url}\" is not an http or https URL: {detail}")]
    Url {
        /// As configured.
        url: String,
        /// Why.
        detail: String,
    },
    /// Its token cannot be read.
    #[error("alerts.webhooks: reading token of {url}: {error}")]
    Token {
        /// Whose.
        url: String,
        /// Why.
        error: std::io::Error,
    },
    /// No client can be built.
    #[error("building the http client of alerts.webhooks: {0}")]
    Client(reqwest::Error),
}

impl Webhooks {
    /// Starts a task for each receiver; they end when this is dropped and their queues are empty.
    ///
    /// # Errors
    /// [`WebhookError`], before anything is started.
    pub fn start(letterhead: Letterhead, meters: &Meters) -> Result<Self, WebhookError> {
        crate::tls::install();
        let posts: Vec<Post> = letterhead.alerts.webhooks.iter().map(Post::new).collect::<Result<_, _>>()?;
        let receivers = posts.into_iter().map(|post| {
            let (sender, receiver) = mpsc::channel(MAX_WAITING);
            tokio::spawn(deliver(post, receiver, meters.clone()));
            sender
        });
        let receivers = receivers.collect();
        Ok(Self { letterhead, receivers, meters: meters.clone() })
    }

    /// Hands notices on; never waits.
    pub fn take(&self, notices: &[Notice]) {
        for notice in notices.iter().filter(|_| !self.receivers.is_empty()) {
            let body = Arc::new(body(&self.letterhead, notice));
            for receiver in &self.receivers {
                if receiver.try_send(Arc::clone(&body)).is_err() {
                    self.meters.shed("webhook_queue", 1);
                }
            }
        }
    }
}

/// Checks the receivers' URLs and reads their tokens once.
///
/// # Errors
/// [`WebhookError`] of the first that is wrong.
pub fn check(alerts: &AlertSettings) -> Result<(), WebhookError> {
    crate::tls::install();
    alerts.webhooks.iter().try_for_each(|settings| Post::new(settings).map(drop))
}

/// The body of one notice.
#[must_use]
pub fn body(letterhead: &Letterhead, notice: &Notice) -> Value {
    let firing = notice.state == NoticeState::Firing;
    let status = if firing { "firing" } else { "resolved" };
    let (name, key) = (notice.alert.as_str(), notice.subject.key());
    let (labels, annotations) = (labels(letterhead, notice), annotations(letterhead, notice));
    let alert = json!({
        "status": status, "labels": labels, "annotations": annotations, "generatorURL": letterhead.page_url,
        "startsAt": rfc3339::text(notice.started_at), "fingerprint": format!("{name}/{key}"),
        "endsAt": if firing { NEVER.to_owned() } else { rfc3339::text(notice.at) },
    });
    json!({
        "version": "4", "groupKey": format!("{{}}:{{alertname=\"{name}\",key=\"{key}\"}}"), "truncatedAlerts": 0,
        "status": status, "receiver": "liveqos", "externalURL": letterhead.page_url,
        "groupLabels": { "alertname": name }, "commonLabels": labels, "commonAnnotations": annotations,
        "alerts": [alert],
    })
}

fn labels(letterhead: &Letterhead, notice: &Notice) -> Value {
    let mut labels = json!({
        "alertname": notice.alert.as_str(), "severity": notice.severity(), "node": letterhead.node,
        "cause": notice.cause.as_str(), "source": "liveqos",
    });
    if !letterhead.region.is_empty() {
        labels["region"] = json!(letterhead.region);
    }
    match &notice.subject {
        Subject::Session(session) => {
            labels["session_id"] = json!(session.id);
            if let Some(course) = &session.course_id {
                labels["course_id"] = json!(course);
            }
        }
        Subject::Source(source) => labels["probe"] = json!(source.as_ref()),
        Subject::Peer(peer) => labels["peer"] = json!(peer.as_ref()),
        Subject::Node => {}
    }
    labels
}

fn annotations(letterhead: &Letterhead, notice: &Notice) -> Value {
    let onset = rfc3339::text(notice.started_at);
    let mut out =
        json!({ "summary": notice.summary(), "description": format!("{}; onset {onset}", notice.description()) });
    let mut link = |name: &str, template: &str, key: &str, value: &str| {
        if !template.is_empty() {
            out[name] = json!(template.replace(key, value));
        }
    };
    link("runbook_url", &letterhead.alerts.runbook_url, "{alertname}", notice.alert.as_str());
    if let Subject::Session(session) = &notice.subject {
        link("trace_url", &letterhead.alerts.trace_url, "{trace_id}", &ids::hex(&ids::trace_id(session)));
        link("dashboard_url", &letterhead.alerts.dashboard_url, "{session_id}", session.id.as_str());
    }
    out
}

struct Post {
    client: reqwest::Client,
    url: reqwest::Url,
    token: Option<HeaderValue>,
}

impl Post {
    fn new(settings: &WebhookSettings) -> Result<Self, WebhookError> {
        let bad_url = |detail: String| WebhookError::Url { url: settings.url.clone(), detail };
        let url = reqwest::Url::parse(&settings.url).map_err(|error| bad_url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad_url("its scheme is neither".to_owned()));
        }
        let shown = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let token = settings.token_file.as_ref().map(|path| {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|error| WebhookError::Token { url: shown.clone(), error })?;
            let header = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
            let mut header = header
                .map_err(|error| WebhookError::Token { url: shown.clone(), error: std::io::Error::other(error) })?;
            header.set_sensitive(true);
            Ok(header)
        });
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().map_err(WebhookError::Client)?;
        Ok(Self { client, url, token: token.transpose()? })
    }

    /// Posts once; `Err(true)` when another try may help.
    async fn once(&self, body: &Value) -> Result<(), bool> {
        let mut request = self.client.post(self.url.clone()).json(body);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let status = request.send().await.map_err(|_| true)?.status();
        if status.is_success() {
            return Ok(());
        }
        Err(status.is_server_error() || status.as_u16() == 429)
    }
}

async fn deliver(post: Post, mut receiver: mpsc::Receiver<Arc<Value>>, meters: Meters) {
    let mut waiting = VecDeque::new();
    while let Some(body) = match waiting.pop_front() {
        Some(body) => Some(body),
        None => receiver.recv().await,
    } {
        let since = tokio::time::Instant::now();
        let mut pause = FIRST_PAUSE;
        while let Err(again) = post.once(&body).await {
            if !again || since.elapsed() > GIVE_UP {
                tracing::warn!(
                    receiver = post.url.host_str(),
                    "giving up a notice: the receiver refuses it or stays away"
                );
                meters.shed("webhook_refused", 1);
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            while waiting.len() < MAX_WAITING
                && let Ok(next) = receiver.try_recv()
            {
                waiting.push_back(next);
            }
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// What Alertmanager writes for an alert that has not ended.
const NEVER: &str = "0001-01-01T00:00:00Z";
