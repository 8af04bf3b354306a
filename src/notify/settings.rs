//! What is configured of receivers and silences. Refuses a URL that is none and a secret that cannot be read, before
//! anyone is told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is told of what is wrong, and the links that notices carry.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlertSettings {
    /// Receivers, each told of every notice.
    pub webhooks: Vec<WebhookSettings>,
    /// Maintenance: notices that nobody is told of.
    pub silences: Vec<SilenceSettings>,
    /// Link to a trace in notices, with `{trace_id}` in it.
    pub trace_url: String,
    /// Link to the class's dashboard in notices, with `{session_id}` in it.
    pub dashboard_url: String,
    /// Link to the alert's runbook in notices, with `{alertname}` in it.
    pub runbook_url: String,
}

/// A receiver of notices by HTTP POST.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// What it speaks.
    pub kind: ReceiverKind,
    /// Where to post; of an Alertmanager its root, such as `http://127.0.0.1:9093`, of each replica one.
    pub url: String,
    /// File with the URL, where it is a secret itself, as those of chat robots are.
    pub url_file: Option<PathBuf>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// File with the secret that a DingTalk or Feishu robot's signature is made with.
    pub secret_file: Option<PathBuf>,
    /// Whether it is not told that an alert ended.
    pub firing_only: bool,
    /// Whether it is told of critical alerts only.
    pub critical_only: bool,
}

/// What a receiver speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReceiverKind {
    /// The body that Alertmanager posts to webhooks, version 4.
    #[default]
    Webhook,
    /// Alertmanager's API v2.
    Alertmanager,
    /// A DingTalk group robot.
    Dingtalk,
    /// A Feishu or Lark group robot.
    Feishu,
    /// A `WeCom` group robot.
    Wecom,
}

impl ReceiverKind {
    /// As it is written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Alertmanager => "alertmanager",
            Self::Dingtalk => "dingtalk",
            Self::Feishu => "feishu",
            Self::Wecom => "wecom",
        }
    }
}

/// A time in which nobody is told of some alerts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SilenceSettings {
    /// Labels and their values that an alert must have; a value may end with `*`. None at all: every alert.
    pub labels: BTreeMap<String, String>,
    /// From when, RFC 3339, such as `2026-11-23T22:00:00+08:00`; from ever without it.
    pub from: String,
    /// Until when, RFC 3339; it must be given.
    pub until: String,
    /// Why, for those who read this file.
    pub comment: String,
}

/// Why a receiver or silence cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Its URL is none.
    #[error("alerts.webhooks: the URL of a {kind} receiver is not an http or https URL: {detail}")]
    Url {
        /// Whose.
        kind: &'static str,
        /// Why, without the URL: it may be a secret.
        detail: String,
    },
    /// A file of it cannot be used.
    #[error("alerts.webhooks: reading {path} of a {kind} receiver: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Whose.
        kind: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// No client can be built.
    #[error("building the http client of alerts.webhooks: {0}")]
    Client(reqwest::Error),
    /// A silence's time.
    #[error("alerts.silences: {key} = \"{text}\" is no instant such as 2026-11-23T22:00:00+08:00: {detail}")]
    Instant {
        /// `from` or `until`.
        key: &'static str,
        /// As configured.
        text: String,
        /// Why.
        detail: String,
    },
}

impl AlertSettings {
    /// The same without what may change while the daemon runs.
    #[must_use]
    pub fn without_silences(&self) -> Self {
        Self { silences: Vec::new(), ..self.clone() }
    }
}

impl WebhookSettings {
    /// Kind and host, for people; a URL's path may be a secret.
    #[must_use]
    pub fn shown(&self) -> String {
        let url = self.url_file.as_ref().map_or_else(|| Ok(self.url.clone()), |path| self.read(path));
        let url = url.ok().and_then(|url| reqwest::Url::parse(&url).ok());
        let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or("(no URL)");
        format!("{} at {host}", self.kind.as_str())
    }

    /// The signing secret, where one is configured.
    ///
    /// # Errors
    /// [`NotifyError::File`].
    pub(super) fn secret(&self) -> Result<Option<String>, NotifyError> {
        self.secret_file.as_ref().map(|path| self.read(path)).transpose()
    }

    /// A file's text, without the line's end.
    pub(super) fn read(&self, path: &std::path::Path) -> Result<String, NotifyError> {
        let text = std::fs::read_to_string(path);
        let text =
            text.map_err(|error| NotifyError::File { path: path.to_owned(), kind: self.kind.as_str(), error })?;
        Ok(text.trim().to_owned())
    }
}
