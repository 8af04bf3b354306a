//! Receivers of alerts: real HTTP, each answering as its makers document.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use liveqos::notify::{AlertContext, AlertSettings, Notifiers, ReceiverKind, SilenceSettings, WebhookSettings};
use liveqos::platform::SelfMetrics;
use liveqos_core::model::{Notice, NoticeState, Timestamp};
use serde_json::{Value, json};

use crate::support::notices::stutter;

/// A receiver that answers from a list, then as its last answer again, and keeps what it was told.
struct Robot {
    url: String,
    told: Arc<Mutex<Vec<(String, Value)>>>,
}

type Script = Arc<Mutex<VecDeque<(u16, &'static str)>>>;

impl Robot {
    async fn start(answers: &[(u16, &'static str)]) -> Self {
        let told = Arc::<Mutex<Vec<_>>>::default();
        let script: Script = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let state = (Arc::clone(&told), script);
        let router = axum::Router::new().fallback(take).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/robot/send?access_token=t", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, told }
    }

    fn told(&self) -> Vec<(String, Value)> {
        self.told.lock().unwrap().clone()
    }

    async fn hears(&self, mails: usize) -> Vec<(String, Value)> {
        for _ in 0..400 {
            if self.told().len() >= mails {
                return self.told();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{mails} mails awaited, told {:?}", self.told());
    }
}

type Shared = (Arc<Mutex<Vec<(String, Value)>>>, Script);

async fn take(State((told, script)): State<Shared>, uri: Uri, body: Bytes) -> (StatusCode, &'static str) {
    told.lock().unwrap().push((uri.to_string(), serde_json::from_slice(&body).unwrap()));
    let mut script = script.lock().unwrap();
    let answer = if script.len() > 1 { script.pop_front() } else { script.front().copied() };
    let (status, body) = answer.unwrap_or((200, ""));
    (StatusCode::from_u16(status).unwrap(), body)
}

struct Office {
    notifiers: Notifiers,
    registry: prometheus::Registry,
}

impl Office {
    fn new(webhooks: Vec<WebhookSettings>, silences: Vec<SilenceSettings>) -> Self {
        let registry = prometheus::Registry::new();
        let meters = SelfMetrics::new(&registry).unwrap();
        let alerts = AlertSettings { webhooks, silences, ..AlertSettings::default() };
        let page_url = "http://127.0.0.1:9480/".to_owned();
        let letterhead = AlertContext { node: "media-017".to_owned(), alerts, page_url, ..AlertContext::default() };
        Self { notifiers: Notifiers::start(letterhead, &meters).unwrap(), registry }
    }

    fn shed(&self, reason: &str) -> u64 {
        let families = self.registry.gather();
        let shed = families.iter().find(|family| family.name() == "liveqos_shed_total");
        let series = shed.and_then(|family| {
            family.get_metric().iter().find(|series| series.get_label().iter().any(|label| label.value() == reason))
        });
        series.map_or(0, |series| series.get_counter().get_value() as u64)
    }
}

fn receiver(kind: ReceiverKind, url: &str) -> WebhookSettings {
    WebhookSettings { kind, url: url.to_owned(), ..WebhookSettings::default() }
}

fn all(classes: usize, state: NoticeState) -> Vec<Notice> {
    let (onset, at) = (Timestamp::from_secs(1_800_000_000), Timestamp::from_secs(1_800_000_002));
    (0..classes).map(|class| stutter(class, state, onset, at)).collect()
}

#[tokio::test]
async fn a_node_fault_is_one_message_to_each_chat() {
    let robots = [
        Robot::start(&[(200, r#"{"errcode":0,"errmsg":"ok"}"#)]).await,
        Robot::start(&[(200, r#"{"code":0,"msg":"success","data":{}}"#)]).await,
    ];
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "SECabc\n").unwrap();
    let with_secret = |kind, robot: &Robot| WebhookSettings {
        secret_file: Some(secret.path().to_owned()),
        ..receiver(kind, &robot.url)
    };
    let wecom = Robot::start(&[(200, r#"{"errcode":0,"errmsg":"ok"}"#)]).await;
    let office = Office::new(
        vec![
            with_secret(ReceiverKind::Dingtalk, &robots[0]),
            with_secret(ReceiverKind::Feishu, &robots[1]),
            receiver(ReceiverKind::Wecom, &wecom.url),
        ],
        Vec::new(),
    );
    office.notifiers.take(&all(300, NoticeState::Firing));
    let (uri, body) = robots[0].hears(1).await.remove(0);
    assert!(uri.contains("access_token=t&timestamp=") && uri.contains("&sign="), "{uri}");
    assert_eq!(body["markdown"]["title"], "LiveStutterHigh on media-017: 300 firing");
    assert!(body["markdown"]["text"].as_str().unwrap().contains("and 295 more"), "{body}");
    let (_, card) = robots[1].hears(1).await.remove(0);
    assert_eq!(card["card"]["header"]["template"], "red");
    assert!(card["sign"].is_string() && card["timestamp"].is_string(), "{card}");
    let (_, markdown) = wecom.hears(1).await.remove(0);
    let text = markdown["markdown"]["content"].as_str().unwrap();
    assert!(text.starts_with("<font color=\"warning\">") && text.len() <= 4_096, "{text}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!([robots[0].told().len(), robots[1].told().len(), wecom.told().len()], [1, 1, 1]);
}

#[tokio::test]
async fn a_robot_that_refuses_with_success_is_not_believed() {
    let keyword = Robot::start(&[(200, r#"{"errcode":310000,"errmsg":"keywords not in content"}"#)]).await;
    let busy = Robot::start(&[(200, r#"{"errcode":130101,"errmsg":"send too fast"}"#)]).await;
    let dingtalk = |robot: &Robot| receiver(ReceiverKind::Dingtalk, &robot.url);
    let office = Office::new(vec![dingtalk(&keyword), dingtalk(&busy)], Vec::new());
    office.notifiers.take(&all(2, NoticeState::Firing));
    keyword.hears(1).await;
    busy.hears(1).await;
    until(|| office.shed("webhook_refused") == 2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((keyword.told().len(), busy.told().len()), (1, 1), "a robot that is shut is left alone");
}

#[tokio::test]
async fn a_webhook_hears_each_change_once_whatever_it_answers_first() {
    let hook = Robot::start(&[(503, ""), (429, ""), (200, "")]).await;
    let office = Office::new(vec![receiver(ReceiverKind::Webhook, &hook.url)], Vec::new());
    office.notifiers.take(&all(3, NoticeState::Firing));
    let told = hook.hears(3).await;
    assert_eq!(told[0].1, told[2].1, "the same again");
    let body = &told[2].1;
    assert_eq!(body["version"], "4");
    assert_eq!(body["groupLabels"], json!({ "alertname": "LiveStutterHigh", "cause": "node" }));
    assert_eq!(body["alerts"].as_array().unwrap().len(), 3);
    assert_eq!(body["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(body["commonLabels"]["session_id"], Value::Null, "that is not common");
    office.notifiers.take(&all(1, NoticeState::Resolved));
    let told = hook.hears(4).await;
    assert_eq!((&told[3].1["status"], told[3].1["alerts"].as_array().unwrap().len()), (&json!("resolved"), 1));
}

#[tokio::test]
async fn an_alertmanager_is_told_true_times() {
    let manager = Robot::start(&[(200, "")]).await;
    let root = manager.url.split("/robot").next().unwrap();
    let office = Office::new(vec![receiver(ReceiverKind::Alertmanager, root)], Vec::new());
    office.notifiers.take(&all(2, NoticeState::Firing));
    let (uri, body) = manager.hears(1).await.remove(0);
    assert_eq!(uri, "/api/v2/alerts");
    assert_eq!(body[0]["startsAt"], "2027-01-15T08:00:00.000Z");
    let end: jiff::Timestamp = body[0]["endsAt"].as_str().unwrap().parse().unwrap();
    assert!(end > jiff::Timestamp::now(), "it holds");
    office.notifiers.take(&all(1, NoticeState::Resolved));
    let told = manager.hears(2).await;
    let ended: Vec<_> =
        told[1].1.as_array().unwrap().iter().filter(|alert| alert["endsAt"] == "2027-01-15T08:00:02.000Z").collect();
    assert_eq!((told[1].1.as_array().unwrap().len(), ended.len()), (2, 1), "all that holds is told with what ended");
}

#[tokio::test]
async fn nobody_is_told_what_a_silence_covers() {
    let hook = Robot::start(&[(200, "")]).await;
    let silence = SilenceSettings {
        labels: [("session_id".to_owned(), "live/class1".to_owned())].into(),
        until: "2099-01-01T00:00:00Z".to_owned(),
        ..SilenceSettings::default()
    };
    let office = Office::new(vec![receiver(ReceiverKind::Webhook, &hook.url)], vec![silence]);
    office.notifiers.take(&all(3, NoticeState::Firing));
    let told = hook.hears(1).await;
    assert_eq!(told[0].1["alerts"].as_array().unwrap().len(), 2);
    assert_eq!(office.shed("silenced"), 1);
}

async fn until(holds: impl Fn() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it never held");
}
