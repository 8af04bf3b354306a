//! The access log of a real nginx: by syslog over UDP and a Unix socket, and from a file over the daemon's violent
//! death, each request counted once.

use std::path::Path;
use std::time::Duration;

use liveqos_testkit::daemon::{Daemon, get, value};
use liveqos_testkit::ports::{ReservedPort, udp_address};
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::wait::until;

/// nginx with one media file, whose requests it logs by this `access_log` directive.
async fn edge(folder: &Path, log: &str) -> (Program, ReservedPort, String) {
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let guide = include_str!("../../docs/access-logs.md");
    let (_, format) = guide.split_once("log_format liveqos ").unwrap();
    let (format, _) = format.split_once(';').unwrap();
    std::fs::create_dir_all(folder.join("hls/c1")).unwrap();
    std::fs::write(folder.join("hls/c1/7.ts"), [7; 900]).unwrap();
    // A log of each worker is flushed at once: nothing is buffered.
    let config = format!(
        "daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr notice;\nevents {{}}\n\
         http {{ log_format liveqos {format};\nserver {{ listen 127.0.0.1:{port}; root {}; {log} }} }}\n",
        folder.display()
    );
    let file = folder.join("edge.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = command("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
    let program = Program::start("edge", &mut command, folder, false);
    let url = format!("http://127.0.0.1:{port}/hls/c1/7.ts?CMCD=d%3D2000%2Csid%3D%22a%22");
    until("nginx", Duration::from_secs(10), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
    })
    .await;
    (program, reserved, url)
}

async fn ask(url: &str, times: usize) {
    for _ in 0..times {
        get(url).await.unwrap();
    }
}

/// Media bytes that viewers got by the log, as the daemon counts them.
async fn bytes(daemon: &Daemon) -> f64 {
    let page = daemon.metrics().await;
    value(&page, "liveqos_media_io_bytes_total", &["direction=\"transmit\""]).unwrap_or_default()
}

/// Waits until the daemon has counted all these requests; panics when it counts more.
async fn counted(daemon: &Daemon, requests: usize) {
    until("all requests of nginx", Duration::from_secs(30), async || {
        let bytes = bytes(daemon).await;
        assert!(bytes < requests as f64 * 900.0 + 1.0, "{bytes} bytes of {requests} requests: some are counted twice");
        (bytes > requests as f64 * 900.0 - 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_logs_by_syslog() {
    for unix in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let syslog = udp_address();
        let socket = folder.path().join("log.sock");
        let listen = if unix { format!("unix:{}", socket.display()) } else { format!("udp://{syslog}") };
        let config = format!("discover = false\n[[logs]]\nlisten = \"{listen}\"\napp = \"live\"\n");
        let daemon = Daemon::start_in(folder.path(), &config).await;
        let server = if unix { listen.clone() } else { syslog.to_string() };
        // With the host's name and without: both are headers that nginx writes.
        let option = if unix { "" } else { "nohostname," };
        let log = format!("access_log syslog:server={server},{option}tag=liveqos liveqos;");
        let (nginx, _port, url) = edge(folder.path(), &log).await;
        ask(&url, 120).await;
        counted(&daemon, 120).await;
        let page = daemon.metrics().await;
        for reason in ["syslog_form", "log_line_form", "syslog_lost"] {
            assert!(!page.contains(&format!("reason=\"{reason}\"")), "{reason}: {page}");
        }
        // nginx goes on when the daemon does not read.
        assert!(daemon.program.stop().await.success());
        ask(&url, 50).await;
        assert!(!nginx.log().contains("upstream timed out"), "{}", nginx.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_reads_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    std::fs::write(&log, "").unwrap();
    let config = format!(
        "discover = false\n[[logs]]\npath = {log:?}\nposition_file = {:?}\napp = \"live\"\n",
        folder.path().join("access.position")
    );
    let (_nginx, _port, url) = edge(folder.path(), &format!("access_log {} liveqos;", log.display())).await;
    let mut daemon = Daemon::start_in(folder.path(), &config).await;
    until("the first round of the log", Duration::from_secs(10), async || {
        let sources = daemon.json("/api/v1/sources").await?;
        sources["sources"][0]["last_success"].is_number().then_some(())
    })
    .await;
    ask(&url, 70).await;
    counted(&daemon, 70).await;
    daemon.program.signal("KILL");
    daemon.program.ended(Duration::from_secs(5)).await;
    // What is written while it is dead is read by the next one, and nothing of before.
    ask(&url, 30).await;
    let daemon = Daemon::start_in(folder.path(), &config).await;
    ask(&url, 20).await;
    counted(&daemon, 50).await;
    let sources = daemon.json("/api/v1/sources").await.unwrap();
    assert_eq!(sources["sources"][0]["state"], "up", "{sources}");
    // Lines are read in order: with the next ones read, nothing of before can come again unseen.
    ask(&url, 20).await;
    counted(&daemon, 70).await;
}
