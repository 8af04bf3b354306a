//! A real Prometheus with the configuration and the rules that are shipped.

use std::path::Path;
use std::time::Duration;

use liveqos_testkit::daemon::{get, http_client};
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::wait;
use serde_json::Value;

/// A running Prometheus.
pub(crate) struct Prometheus {
    _program: Program,
    _port: ReservedPort,
    url: String,
}

impl Prometheus {
    /// Starts it on `deploy/prometheus`, scraping these addresses.
    pub(crate) async fn start(folder: &Path, targets: &[String]) -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
        for file in ["scrape.yml", "liveqos.rules.yml", "liveqos.slo.rules.yml"] {
            std::fs::copy(shipped.join(file), folder.join(file)).unwrap();
        }
        std::fs::create_dir(folder.join("targets")).unwrap();
        let list = serde_json::json!([{ "targets": targets, "labels": { "region": "test", "edge": "test" } }]);
        std::fs::write(folder.join("targets/test.json"), list.to_string()).unwrap();
        let port = ReservedPort::new();
        let mut command = command("prometheus");
        command.arg(format!("--config.file={}", folder.join("scrape.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()));
        command.arg(format!("--web.listen-address={}", port.address()));
        command.arg("--enable-feature=exemplar-storage");
        let program = Program::start("prometheus", &mut command, folder, false);
        let url = format!("http://{}", port.address());
        let ready = format!("{url}/-/ready");
        wait::until("prometheus", Duration::from_secs(30), async || get(&ready).await).await;
        Self { _program: program, _port: port, url }
    }

    /// The data of an answer of its API.
    pub(crate) async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("{}/api/v1/{path}", self.url);
        let url = reqwest::Url::parse_with_params(&url, parameters).unwrap();
        let answer = http_client().get(url).send().await.map_err(|error| error.to_string())?;
        let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(answer["error"].to_string()) }
    }

    /// How many series an expression gives now.
    pub(crate) async fn series(&self, expr: &str) -> Result<usize, String> {
        let data = self.ask("query", &[("query", expr)]).await?;
        Ok(data["result"].as_array().map_or(0, Vec::len))
    }
}
