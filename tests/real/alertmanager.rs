//! A real Alertmanager with the routing that is shipped, notified by the program's own dispatcher: receives, groups,
//! resolves.

use std::path::Path;
use std::time::Duration;

use liveqos::notify::{AlertContext, AlertSettings, Notifiers, ReceiverKind, WebhookSettings};
use liveqos::platform::SelfMetrics;
use liveqos_core::model::{Notice, NoticeState, Timestamp};
use liveqos_testkit::daemon::get;
use liveqos_testkit::notices::stutter;
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::{Program, command, run};
use liveqos_testkit::wait;
use liveqos_testkit::webhook::Webhook;
use serde_json::Value;

const CLASSES: usize = 12;

#[tokio::test]
async fn alertmanager_receives_groups_and_resolves() {
    let (folder, webhook) = (tempfile::tempdir().unwrap(), Webhook::start().await);
    let manager = Alertmanager::start(folder.path(), &webhook.url).await;
    let receiver =
        WebhookSettings { kind: ReceiverKind::Alertmanager, url: manager.url.clone(), ..WebhookSettings::default() };
    let settings = AlertSettings { webhooks: vec![receiver], ..AlertSettings::default() };
    let page_url = "http://127.0.0.1:9480/".to_owned();
    let context = AlertContext { node: "media-017".to_owned(), alerts: settings, page_url, ..AlertContext::default() };
    let meters = SelfMetrics::new(&prometheus::Registry::new()).unwrap();
    let notifiers = Notifiers::start(context, &meters).unwrap();

    let onset = liveqos::platform::clock::now() - Duration::from_secs(3);
    notifiers.take(&notices(NoticeState::Firing, onset));
    let alerts = wait::until("all classes", Duration::from_secs(10), async || {
        let alerts = manager.alerts().await?;
        (alerts.len() == CLASSES).then_some(alerts)
    })
    .await;
    let starts: jiff::Timestamp = alerts[0]["startsAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(starts.as_millisecond() as u64, onset.millis(), "the true onset");
    let firing =
        wait::until("one message", Duration::from_secs(10), async || webhook.call("LiveStutterHigh", "firing")).await;
    assert_eq!(firing["alerts"].as_array().unwrap().len(), CLASSES, "a fault of a node is one message");
    assert_eq!(firing["groupLabels"]["cause"], "node");

    notifiers.take(&notices(NoticeState::Resolved, onset));
    let within = Duration::from_secs(40);
    let ended = wait::until("the end", within, async || webhook.call("LiveStutterHigh", "resolved")).await;
    assert_eq!(ended["alerts"].as_array().unwrap().len(), CLASSES);
    assert_eq!(webhook.alerts(), ["LiveStutterHigh firing", "LiveStutterHigh resolved"]);
}

#[test]
fn amtool_finds_no_fault_in_what_is_shipped() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alertmanager/alertmanager.yml");
    let (code, output) = run(command("amtool").arg("check-config").arg(shipped));
    assert_eq!(code, Some(0), "{output}");
}

struct Alertmanager {
    _program: Program,
    _port: ReservedPort,
    url: String,
}

impl Alertmanager {
    async fn start(folder: &Path, webhook: &str) -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alertmanager/alertmanager.yml");
        let config = std::fs::read_to_string(shipped).unwrap().replace("http://127.0.0.1:5001/alerts", webhook);
        assert!(config.contains(webhook));
        let file = folder.join("alertmanager.yml");
        std::fs::write(&file, config).unwrap();
        let port = ReservedPort::new();
        let mut command = command("prometheus-alertmanager");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={}", port.address())).arg("--cluster.listen-address=");
        let program = Program::start("alertmanager", &mut command, folder, false);
        let url = format!("http://{}", port.address());
        let ready = format!("{url}/-/ready");
        wait::until("alertmanager", Duration::from_secs(30), async || get(&ready).await).await;
        Self { _program: program, _port: port, url }
    }

    async fn alerts(&self) -> Option<Vec<Value>> {
        serde_json::from_str(&get(&format!("{}/api/v2/alerts", self.url)).await?).ok()
    }
}

fn notices(state: NoticeState, started_at: Timestamp) -> Vec<Notice> {
    let at = liveqos::platform::clock::now();
    (0..CLASSES).map(|class| stutter(class, state, started_at, at)).collect()
}
