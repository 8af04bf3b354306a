//! What one builds without the alerts of liveqos: Debian's Prometheus with a rule on the classes' stutter, and its
//! Alertmanager, both as quick as they can reasonably be set.

use std::path::Path;
use std::time::Duration;

use liveqos_testkit::daemon::get;
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::wait;

/// Both, running.
pub(crate) struct Rivals {
    pub(crate) prometheus: Program,
    pub(crate) alertmanager: Program,
    _ports: [ReservedPort; 2],
}

impl Rivals {
    /// Watches the daemon at `target`; notifies `webhook`.
    pub(crate) async fn start(folder: &Path, target: &str, webhook: &str) -> Self {
        let ports = [ReservedPort::new(), ReservedPort::new()];
        let [metrics, alerts] = ports.each_ref().map(ReservedPort::address);
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        write("prometheus_.rules.yml", RULES.to_owned());
        write("prometheus_.yml", SCRAPE.replace("TARGET", target).replace("MANAGER", &alerts.to_string()));
        write("rival-routes.yml", ROUTES.replace("WEBHOOK", webhook));
        let file = |name: &str| folder.join(name).display().to_string();
        let mut manager = command("prometheus-alertmanager");
        manager.arg(format!("--config.file={}", file("rival-routes.yml")));
        manager.arg(format!("--storage.path={}", file("rival-alerts")));
        manager.arg(format!("--web.listen-address={alerts}")).arg("--cluster.listen-address=");
        let alertmanager = Program::start("alertmanager", &mut manager, folder, false);
        let mut server = command("prometheus");
        server.arg(format!("--config.file={}", file("prometheus_.yml")));
        server.arg(format!("--storage.tsdb.path={}", file("rival-series")));
        server.arg(format!("--web.listen-address={metrics}"));
        let prometheus = Program::start("prometheus", &mut server, folder, false);
        for address in [alerts, metrics] {
            let ready = format!("http://{address}/-/ready");
            wait::until("prometheus and alertmanager", Duration::from_mins(1), async || get(&ready).await).await;
        }
        Self { prometheus, alertmanager, _ports: ports }
    }
}

const SCRAPE: &str = "
global: { scrape_interval: 5s, evaluation_interval: 5s }
rule_files: [prometheus_.rules.yml]
scrape_configs: [{ job_name: liveqos, static_configs: [{ targets: ['TARGET'] }] }]
alerting: { alertmanagers: [{ static_configs: [{ targets: ['MANAGER'] }] }] }
";

const RULES: &str = "
groups:
  - name: stutter
    rules: [{ alert: LiveStutterHigh, expr: 'max by (session_id) (liveqos_session_stutter_ratio) > 0.01' }]
";

const ROUTES: &str = "
route: { receiver: webhook, group_by: ['session_id'], group_wait: 0s, group_interval: 1s, repeat_interval: 4h }
receivers: [{ name: webhook, webhook_configs: [{ url: 'WEBHOOK', send_resolved: true }] }]
";
