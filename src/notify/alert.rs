//! One notice in the words of alerting: labels, annotations, when. Decides names and links; refuses nothing.

use std::collections::BTreeMap;

use liveqos_core::base::hex;
use liveqos_core::model::{Notice, NoticeState, Subject, Timestamp};

use super::settings::AlertSettings;
use crate::platform::{rfc3339, trace_id};

/// The links and names that notices carry.
#[derive(Clone, Debug, Default)]
pub struct AlertContext {
    /// The node.
    pub node: String,
    /// Its region.
    pub region: String,
    /// Templates of links, receivers, silences.
    pub alerts: AlertSettings,
    /// The node's own page.
    pub page_url: String,
}

/// Labels or annotations, sorted by name.
pub(super) type Pairs = BTreeMap<&'static str, String>;

/// One alert that began or ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Whether it holds.
    pub firing: bool,
    /// Alert and subject: what a beginning and its end share.
    pub key: String,
    /// Labels, none empty.
    pub labels: Pairs,
    /// Texts and links.
    pub annotations: Pairs,
    /// The onset by the evidence.
    pub started_at: Timestamp,
    /// When it was judged so.
    pub at: Timestamp,
}

impl Alert {
    /// The letter of a notice.
    #[must_use]
    pub fn of(letterhead: &AlertContext, notice: &Notice) -> Self {
        Self {
            firing: notice.state == NoticeState::Firing,
            key: format!("{}/{}", notice.alert.as_str(), notice.subject.key()),
            labels: labels(letterhead, notice),
            annotations: annotations(letterhead, notice),
            started_at: notice.started_at,
            at: notice.at,
        }
    }

    /// A letter that says that it is a test.
    #[must_use]
    pub fn test(letterhead: &AlertContext, firing: bool, at: Timestamp) -> Self {
        let labels = [
            ("alertname", "LiveqosTest"),
            ("severity", "warning"),
            ("node", &letterhead.node),
            ("region", &letterhead.region),
            ("cause", "unknown"),
            ("source", "liveqos"),
        ];
        let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
        let text = "a test of liveqos, asked for by `liveqos check --notify`; nothing is wrong";
        Self {
            firing,
            key: "LiveqosTest/".to_owned(),
            labels: labels.map(|(name, value)| (name, value.to_owned())).collect(),
            annotations: Pairs::from([("summary", text.to_owned()), ("description", text.to_owned())]),
            started_at: at,
            at,
        }
    }

    /// A label's value, empty where it has none.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// An annotation's text, empty where it has none.
    #[must_use]
    pub fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }
}

fn labels(letterhead: &AlertContext, notice: &Notice) -> Pairs {
    let mut labels = Pairs::from([
        ("alertname", notice.alert.as_str().to_owned()),
        ("severity", notice.severity().to_owned()),
        ("node", letterhead.node.clone()),
        ("region", letterhead.region.clone()),
        ("cause", notice.cause.as_str().to_owned()),
        ("scope", "node".to_owned()),
        ("source", "liveqos".to_owned()),
    ]);
    match &notice.subject {
        Subject::Session(session) => {
            labels.insert("scope", "session".to_owned());
            labels.insert("session_id", session.id.as_str().to_owned());
            if let Some(course) = &session.course_id {
                labels.insert("course_id", course.as_str().to_owned());
            }
        }
        Subject::Source(source) => {
            labels.insert("probe", source.as_ref().to_owned());
        }
        Subject::Peer(peer) => {
            labels.insert("peer", peer.as_ref().to_owned());
        }
        Subject::Node => {}
    }
    labels.retain(|_, value| !value.is_empty());
    labels
}

fn annotations(letterhead: &AlertContext, notice: &Notice) -> Pairs {
    let onset = rfc3339::text(notice.started_at);
    let mut out = Pairs::from([
        ("summary", notice.summary()),
        ("description", format!("{}; onset {onset}", notice.description())),
    ]);
    let mut link = |name: &'static str, template: &str, key: &str, value: &str| {
        if !template.is_empty() {
            out.insert(name, template.replace(key, value));
        }
    };
    link("runbook_url", &letterhead.alerts.runbook_url, "{alertname}", notice.alert.as_str());
    if let Subject::Session(session) = &notice.subject {
        link("trace_url", &letterhead.alerts.trace_url, "{trace_id}", &hex::encode(&trace_id::trace_id(session)));
        link("dashboard_url", &letterhead.alerts.dashboard_url, "{session_id}", session.id.as_str());
    }
    out
}
