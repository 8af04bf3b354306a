//! nginx with the RTMP module, its hooks relayed to the daemon by the configuration of docs/nginx-rtmp.md.

use std::path::Path;
use std::time::Duration;

use liveqos_testkit::daemon::get;
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::wait;

/// A running nginx.
pub(crate) struct Nginx {
    pub(crate) program: Program,
    /// Port of RTMP.
    pub(crate) media: u16,
    /// URL of its status page.
    pub(crate) stat: String,
    _ports: [ReservedPort; 2],
}

impl Nginx {
    /// Starts it; its hooks go to the daemon on port `daemon`.
    pub(crate) async fn start(folder: &Path, daemon: u16) -> Self {
        let ports = [ReservedPort::new(), ReservedPort::new()];
        let [media, status] = ports.each_ref().map(ReservedPort::number);
        let hooks = format!("http://127.0.0.1:{status}/liveqos-hook");
        let guide = include_str!("../../docs/nginx-rtmp.md");
        let (_, relay) = guide.split_once("# in the http server\n").unwrap();
        let (relay, _) = relay.split_once("```").unwrap();
        let relay = relay.replace(":9480", &format!(":{daemon}"));
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;\n\
             daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr notice;\n\
             events {{ worker_connections 256; }}\n\
             rtmp {{ access_log off; server {{ listen 127.0.0.1:{media}; application live {{\n\
             live on; notify_method post; notify_update_timeout 2s;\n\
             on_update {hooks}; on_publish_done {hooks}; on_done {hooks};\n\
             }} }} }}\n\
             http {{ access_log off; server {{ listen 127.0.0.1:{status};\nlocation /stat {{ rtmp_stat all; }}\n{relay}}} }}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = command("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
        let program = Program::start("nginx", &mut command, folder, false);
        let nginx = Self { program, media, stat: format!("http://127.0.0.1:{status}/stat"), _ports: ports };
        wait::until("nginx", Duration::from_secs(10), async || get(&nginx.stat).await).await;
        nginx
    }

    /// Where a class is published and played.
    pub(crate) fn url(&self, stream: &str) -> String {
        format!("rtmp://127.0.0.1:{}/live/{stream}", self.media)
    }

    /// The first number in an element of a stream's part of the status page: of the stream itself, or of the client
    /// `id`.
    pub(crate) async fn number(&self, stream: &str, element: &str) -> Option<u64> {
        let page = get(&self.stat).await?;
        number(page.split_once(&format!("<name>{stream}</name>"))?.1, element)
    }

    /// The ids of all connections of the one stream, publisher included.
    pub(crate) async fn clients(&self) -> Vec<u64> {
        let page = get(&self.stat).await.unwrap_or_default();
        let mut ids: Vec<u64> = page.split("<client>").skip(1).filter_map(|client| number(client, "id")).collect();
        ids.sort_unstable();
        ids
    }
}

fn number(text: &str, element: &str) -> Option<u64> {
    let rest = text.split_once(&format!("<{element}>"))?.1;
    rest.split_once('<')?.0.parse().ok()
}
