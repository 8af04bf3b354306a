//! A notice as an alert in the terms of Prometheus and Alertmanager: labels, annotations, times.

use std::collections::BTreeMap;

use liveqos_core::base::hex;
use liveqos_core::model::{Notice, NoticeState, Subject, Timestamp};

use super::settings::AlertSettings;
use crate::platform::{rfc3339, trace_id};

/// What every alert of this node carries: its name and region, and templates of links.
#[derive(Clone, Debug, Default)]
pub struct AlertContext {
    /// The node's name.
    pub node: String,
    /// Its region.
    pub region: String,
    /// Link templates, receivers and silences.
    pub alerts: AlertSettings,
    /// URL of the node's own page.
    pub page_url: String,
}

/// Labels or annotations, sorted by name.
pub(super) type Pairs = BTreeMap<&'static str, String>;

/// An alert that began or ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Whether it is firing; else it is resolved.
    pub firing: bool,
    /// Name and subject of the alert: the same when it fires and when it is resolved.
    pub key: String,
    /// Labels, none empty.
    pub labels: Pairs,
    /// Summary, description and links.
    pub annotations: Pairs,
    /// The onset shown by the evidence.
    pub started_at: Timestamp,
    /// When its state was decided.
    pub at: Timestamp,
}

impl Alert {
    /// The alert of `notice`.
    #[must_use]
    pub fn of(context: &AlertContext, notice: &Notice) -> Self {
        Self {
            firing: notice.state == NoticeState::Firing,
            key: format!("{}/{}", notice.alert.as_str(), notice.subject.key()),
            labels: labels(context, notice),
            annotations: annotations(context, notice),
            started_at: notice.started_at,
            at: notice.at,
        }
    }

    /// The alert of a test, named `LiveqosTest`, which says that it is one.
    #[must_use]
    pub fn test(context: &AlertContext, firing: bool, at: Timestamp) -> Self {
        let labels = [
            ("alertname", "LiveqosTest"),
            ("severity", "warning"),
            ("node", &context.node),
            ("region", &context.region),
            ("cause", "unknown"),
            ("source", "liveqos"),
        ];
        let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
        let text = "a test of liveqos, requested by `liveqos check --notify`; nothing is wrong";
        Self {
            firing,
            key: "LiveqosTest/".to_owned(),
            labels: labels.map(|(name, value)| (name, value.to_owned())).collect(),
            annotations: Pairs::from([("summary", text.to_owned()), ("description", text.to_owned())]),
            started_at: at,
            at,
        }
    }

    /// The value of a label; empty where there is none.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The text of an annotation; empty where there is none.
    #[must_use]
    pub fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }
}

fn labels(context: &AlertContext, notice: &Notice) -> Pairs {
    let mut labels = Pairs::from([
        ("alertname", notice.alert.as_str().to_owned()),
        ("severity", notice.severity().to_owned()),
        ("node", context.node.clone()),
        ("region", context.region.clone()),
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

fn annotations(context: &AlertContext, notice: &Notice) -> Pairs {
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
    link("runbook_url", &context.alerts.runbook_url, "{alertname}", notice.alert.as_str());
    if let Subject::Session(session) = &notice.subject {
        link("trace_url", &context.alerts.trace_url, "{trace_id}", &hex::encode(&trace_id::trace_id(session)));
        link("dashboard_url", &context.alerts.dashboard_url, "{session_id}", session.id.as_str());
    }
    out
}
