//! nginx as the edge: it serves one class under any number of names and writes the access log that docs/access-logs.md
//! asks for. Decides nothing but ports, folders and that every folder below `/hls/` and
//! `/dash/` is the same class.

use std::path::{Path, PathBuf};
use std::time::Duration;

use liveqos_testkit::daemon::http_client;
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::wait;

/// A running nginx.
pub(crate) struct Nginx {
    /// The process.
    _program: Program,
    /// Where it listens.
    pub(crate) port: u16,
    /// Its access log, requests and event bodies alike.
    pub(crate) log: PathBuf,
    _ports: [ReservedPort; 2],
}

impl Nginx {
    /// Starts it; `media` holds the folders `hls` and `dash`. The path `/cmcd` takes event reports into the log.
    pub(crate) async fn start(folder: &Path, media: &Path) -> Self {
        let ports = [ReservedPort::new(), ReservedPort::new()];
        let [port, answers] = ports.each_ref().map(ReservedPort::number);
        let log = folder.join("cmcd.log");
        let guide = include_str!("../../docs/access-logs.md");
        let requests = block(guide, "log_format liveqos escape=json");
        let requests = requests.replace("/var/log/nginx/cmcd.log", &log.display().to_string());
        let events = block(guide, "log_format cmcd_events escape=json");
        let events = events
            .replace("/var/log/nginx/cmcd.log", &log.display().to_string())
            .replace(":8099", &format!(":{answers}"))
            .replace(
                "# the edge itself\n",
                &format!(
                    "listen 127.0.0.1:{port};\ntypes {{ application/vnd.apple.mpegurl m3u8; application/dash+xml mpd; video/mp2t ts; video/mp4 m4s mp4; }}\n\
                     location ~ ^/(hls|dash)/[^/]+/(.+)$ {{ alias {}/$1/$2; add_header Access-Control-Allow-Origin * always; \
                     add_header Access-Control-Allow-Headers \"cmcd-request, cmcd-object, cmcd-status, cmcd-session\" always; \
                     add_header Cache-Control no-cache always; if ($request_method = OPTIONS) {{ return 204; }} }}\n",
                    media.display()
                ),
            );
        let config = format!(
            "daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr warn;\nevents {{ worker_connections 512; }}\n\
             http {{ client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             {requests}\n{events}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = command("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
        let program = Program::start("nginx", &mut command, folder, false);
        let nginx = Self { _program: program, port, log, _ports: ports };
        // A class of some age, so that players find their usual distance from its live edge.
        let segment = format!("http://127.0.0.1:{port}/hls/warm-up/4.ts");
        wait::until("nginx and the class", Duration::from_mins(1), async || exists(&segment).await).await;
        nginx
    }
}

async fn exists(url: &str) -> Option<()> {
    http_client().get(url).send().await.ok()?.error_for_status().ok().map(drop)
}

/// The fenced block of the guide that begins with `start`.
fn block<'a>(guide: &'a str, start: &str) -> &'a str {
    let at = guide.find(start).unwrap_or_else(|| panic!("docs/access-logs.md has no `{start}`"));
    guide[at..].split("```").next().unwrap()
}
