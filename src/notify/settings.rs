//! `[alerts]` of the configuration: receivers, silences, links.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is notified of alerts, and the links in notifications.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlertSettings {
    /// Receivers; each is notified of every alert.
    pub webhooks: Vec<WebhookSettings>,
    /// Maintenance: alerts that nobody is notified of.
    pub silences: Vec<SilenceSettings>,
    /// Link to a trace in notifications, with `{trace_id}` in it.
    pub trace_url: String,
    /// Link to the class's dashboard in notifications, with `{session_id}` in it.
    pub dashboard_url: String,
    /// Link to the alert's runbook in notifications, with `{alertname}` in it.
    pub runbook_url: String,
}

/// A receiver of notifications by HTTP POST.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// The receiver's protocol: `webhook`, `alertmanager`, `dingtalk`, `feishu` or `wecom`.
    pub kind: ReceiverKind,
    /// URL to post to; for Alertmanager its root, such as `http://127.0.0.1:9093`, in one table for each replica.
    pub url: String,
    /// File with the URL where it is a secret, as those of chat robots are.
    pub url_file: Option<PathBuf>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// File with the signing secret of a DingTalk or Feishu robot.
    pub secret_file: Option<PathBuf>,
    /// Whether to notify of firing alerts only, not of resolved ones.
    pub firing_only: bool,
    /// Whether to notify of critical alerts only.
    pub critical_only: bool,
}

/// The protocol of a receiver.
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
    /// The name in the configuration.
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

/// A period in which nobody is notified of some alerts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SilenceSettings {
    /// Labels and values that an alert must have; a value may end with `*`. Empty: every alert.
    pub labels: BTreeMap<String, String>,
    /// Start, RFC 3339, such as `2026-11-23T22:00:00+08:00`; without it the silence has already begun.
    pub from: String,
    /// End, RFC 3339; required.
    pub until: String,
    /// The reason, for readers of the file.
    pub comment: String,
}

/// Why a receiver or silence is invalid.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The URL is invalid.
    #[error("alerts.webhooks: the URL of a {kind} receiver is not an http or https URL: {detail}")]
    Url {
        /// The receiver's kind.
        kind: &'static str,
        /// Why, without the URL: it may be a secret.
        detail: String,
    },
    /// A file cannot be used.
    #[error("alerts.webhooks: reading {path} of a {kind} receiver: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The receiver's kind.
        kind: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// The HTTP client cannot be built.
    #[error("building the http client of alerts.webhooks: {0}")]
    Client(reqwest::Error),
    /// The time of a silence is invalid.
    #[error("alerts.silences: {key} = \"{text}\" is not a time such as 2026-11-23T22:00:00+08:00: {detail}")]
    Instant {
        /// `from` or `until`.
        key: &'static str,
        /// The configured text.
        text: String,
        /// Why.
        detail: String,
    },
}

impl AlertSettings {
    /// The settings without those that a reload may change.
    #[must_use]
    pub fn without_silences(&self) -> Self {
        Self { silences: Vec::new(), ..self.clone() }
    }
}

impl WebhookSettings {
    /// Kind and host, for messages: the URL's path may be a secret.
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

    /// The text of a file, trimmed.
    pub(super) fn read(&self, path: &std::path::Path) -> Result<String, NotifyError> {
        let text = std::fs::read_to_string(path);
        let text =
            text.map_err(|error| NotifyError::File { path: path.to_owned(), kind: self.kind.as_str(), error })?;
        Ok(text.trim().to_owned())
    }
}
