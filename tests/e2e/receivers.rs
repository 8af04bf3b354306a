//! Receivers of notifications over real HTTP, each responding as its makers document.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use liveqos::notify::{AlertContext, AlertSettings, Notifiers, ReceiverKind, SilenceSettings, WebhookSettings};
use liveqos::platform::SelfMetrics;
use liveqos_core::model::{Notice, NoticeState, Timestamp};
use liveqos_testkit::notices::stutter;
use liveqos_testkit::wait::{PATIENCE, until};
use serde_json::{Value, json};

/// A chat robot or webhook that responds from a list, repeats the last response, and keeps the notifications.
struct Robot {
    url: String,
    received: Arc<Mutex<Vec<(String, Value)>>>,
}

type Script = Arc<Mutex<VecDeque<(u16, &'static str)>>>;

impl Robot {
    async fn start(responses: &[(u16, &'static str)]) -> Self {
        let received = Arc::<Mutex<Vec<_>>>::default();
        let script: Script = Arc::new(Mutex::new(responses.iter().copied().collect()));
        let state = (Arc::clone(&received), script);
        let router = axum::Router::new().fallback(take).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/robot/send?access_token=t", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, received }
    }

    /// Path and body of all notifications so far.
    fn received(&self) -> Vec<(String, Value)> {
        self.received.lock().unwrap().clone()
    }

    /// The notifications as soon as there are `count`.
    async fn wait(&self, count: usize) -> Vec<(String, Value)> {
        let enough = async || Some(self.received()).filter(|received| received.len() >= count);
        until(&format!("{count} notifications"), PATIENCE, enough).await
    }
}

type Shared = (Arc<Mutex<Vec<(String, Value)>>>, Script);

async fn take(State((received, script)): State<Shared>, uri: Uri, body: Bytes) -> (StatusCode, &'static str) {
    received.lock().unwrap().push((uri.to_string(), serde_json::from_slice(&body).unwrap()));
    let mut script = script.lock().unwrap();
    let response = if script.len() > 1 { script.pop_front() } else { script.front().copied() };
    let (status, body) = response.unwrap_or((200, ""));
    (StatusCode::from_u16(status).unwrap(), body)
}

/// The notifiers of a node, and its own metrics.
struct Node {
    notifiers: Notifiers,
    registry: prometheus::Registry,
}

impl Node {
    fn new(webhooks: Vec<WebhookSettings>, silences: Vec<SilenceSettings>) -> Self {
        let registry = prometheus::Registry::new();
        let meters = SelfMetrics::new(&registry).unwrap();
        let alerts = AlertSettings { webhooks, silences, ..AlertSettings::default() };
        let page_url = "http://127.0.0.1:9480/".to_owned();
        let context = AlertContext { node: "media-017".to_owned(), alerts, page_url, ..AlertContext::default() };
        Self { notifiers: Notifiers::start(context, &meters).unwrap(), registry }
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

/// One alert, of this class.
fn one(class: usize, state: NoticeState) -> Vec<Notice> {
    all(class + 1, state).split_off(class)
}

/// Whether a notification names this class.
fn is_about((_, body): &(String, Value), class: usize) -> bool {
    body.to_string().contains(one(class, NoticeState::Firing)[0].subject.key())
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
    let node = Node::new(
        vec![
            with_secret(ReceiverKind::Dingtalk, &robots[0]),
            with_secret(ReceiverKind::Feishu, &robots[1]),
            receiver(ReceiverKind::Wecom, &wecom.url),
        ],
        Vec::new(),
    );
    node.notifiers.take(&all(300, NoticeState::Firing));
    let (uri, body) = robots[0].wait(1).await.remove(0);
    assert!(uri.contains("access_token=t&timestamp=") && uri.contains("&sign="), "{uri}");
    assert_eq!(body["markdown"]["title"], "LiveStutterHigh on media-017: 300 firing");
    assert!(body["markdown"]["text"].as_str().unwrap().contains("and 295 more"), "{body}");
    let (_, card) = robots[1].wait(1).await.remove(0);
    assert_eq!(card["card"]["header"]["template"], "red");
    assert!(card["sign"].is_string() && card["timestamp"].is_string(), "{card}");
    let (_, markdown) = wecom.wait(1).await.remove(0);
    let text = markdown["markdown"]["content"].as_str().unwrap();
    assert!(text.starts_with("<font color=\"warning\">") && text.len() <= 4_096, "{text}");
    // One message was all: the next is about the next alert.
    node.notifiers.take(&one(300, NoticeState::Firing));
    for robot in [&robots[0], &robots[1], &wecom] {
        let received = robot.wait(2).await;
        assert!(received.len() == 2 && is_about(&received[1], 300), "{received:?}");
    }
}

#[tokio::test]
async fn a_refusal_inside_a_successful_response_is_recognized() {
    let keyword = Robot::start(&[(200, r#"{"errcode":310000,"errmsg":"keywords not in content"}"#)]).await;
    let busy = Robot::start(&[(200, r#"{"errcode":130101,"errmsg":"send too fast"}"#)]).await;
    let dingtalk = |robot: &Robot| receiver(ReceiverKind::Dingtalk, &robot.url);
    let node = Node::new(vec![dingtalk(&keyword), dingtalk(&busy)], Vec::new());
    node.notifiers.take(&all(2, NoticeState::Firing));
    keyword.wait(1).await;
    busy.wait(1).await;
    until("both refusals", PATIENCE, async || (node.shed("webhook_refused") == 2).then_some(())).await;
    // A refused notification is not repeated: the next is about the next alert alone.
    node.notifiers.take(&one(2, NoticeState::Firing));
    let received = keyword.wait(2).await;
    assert!(received.len() == 2 && is_about(&received[1], 2) && !is_about(&received[1], 0), "{received:?}");
    // A blocked robot is left alone, also with the next alert.
    assert_eq!(busy.received().len(), 1);
}

#[tokio::test]
async fn a_webhook_gets_each_change_after_failed_attempts() {
    let hook = Robot::start(&[(503, ""), (429, ""), (200, "")]).await;
    let node = Node::new(vec![receiver(ReceiverKind::Webhook, &hook.url)], Vec::new());
    node.notifiers.take(&all(3, NoticeState::Firing));
    let received = hook.wait(3).await;
    assert_eq!(received[0].1, received[2].1, "each attempt has the same body");
    let body = &received[2].1;
    assert_eq!(body["version"], "4");
    assert_eq!(body["groupLabels"], json!({ "alertname": "LiveStutterHigh", "cause": "node" }));
    assert_eq!(body["alerts"].as_array().unwrap().len(), 3);
    assert_eq!(body["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(body["commonLabels"]["session_id"], Value::Null, "the alerts differ in it");
    node.notifiers.take(&all(1, NoticeState::Resolved));
    let received = hook.wait(4).await;
    assert_eq!((&received[3].1["status"], received[3].1["alerts"].as_array().unwrap().len()), (&json!("resolved"), 1));
}

#[tokio::test]
async fn an_alertmanager_gets_the_true_times() {
    let manager = Robot::start(&[(200, "")]).await;
    let root = manager.url.split("/robot").next().unwrap();
    let node = Node::new(vec![receiver(ReceiverKind::Alertmanager, root)], Vec::new());
    node.notifiers.take(&all(2, NoticeState::Firing));
    let (uri, body) = manager.wait(1).await.remove(0);
    assert_eq!(uri, "/api/v2/alerts");
    assert_eq!(body[0]["startsAt"], "2027-01-15T08:00:00.000Z");
    let end: jiff::Timestamp = body[0]["endsAt"].as_str().unwrap().parse().unwrap();
    assert!(end > jiff::Timestamp::now(), "the alert is firing");
    node.notifiers.take(&all(1, NoticeState::Resolved));
    let received = manager.wait(2).await;
    let ended: Vec<_> = received[1]
        .1
        .as_array()
        .unwrap()
        .iter()
        .filter(|alert| alert["endsAt"] == "2027-01-15T08:00:02.000Z")
        .collect();
    assert_eq!(
        (received[1].1.as_array().unwrap().len(), ended.len()),
        (2, 1),
        "all firing alerts are sent with the resolved one"
    );
}

#[tokio::test]
async fn a_silence_covers_its_alerts() {
    let hook = Robot::start(&[(200, "")]).await;
    let silence = SilenceSettings {
        labels: [("session_id".to_owned(), "live/class1".to_owned())].into(),
        until: "2099-01-01T00:00:00Z".to_owned(),
        ..SilenceSettings::default()
    };
    let node = Node::new(vec![receiver(ReceiverKind::Webhook, &hook.url)], vec![silence]);
    node.notifiers.take(&all(3, NoticeState::Firing));
    let received = hook.wait(1).await;
    assert_eq!(received[0].1["alerts"].as_array().unwrap().len(), 2);
    assert_eq!(node.shed("silenced"), 1);
}
