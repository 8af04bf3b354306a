//! An HTTP edge: Debian's nginx serves segments to viewers of known pace, writes its log as docs/access-logs.md asks,
//! and the daemon joins the kernel's sockets to the class. Its figures are compared with what the viewers themselves
//! counted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use liveqos_testkit::daemon::{Daemon, value};
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::wait;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// A running nginx with segments of one class.
pub(crate) struct Edge {
    _program: Program,
    pub(crate) port: u16,
    _reserved: ReservedPort,
    pub(crate) folder: TempDir,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        let (folder, reserved) = (TempDir::new().unwrap(), ReservedPort::new());
        let port = reserved.number();
        let media = folder.path().join("hls/class1");
        std::fs::create_dir_all(&media).unwrap();
        for number in 0..SEGMENTS {
            std::fs::write(media.join(format!("{number}.ts")), vec![0x47; SEGMENT]).unwrap();
        }
        let guide = include_str!("../../docs/access-logs.md");
        let (_, format) = guide.split_once("## Delivery latency").unwrap().1.split_once("```nginx\n").unwrap();
        let (format, _) = format.split_once("access_log").unwrap();
        let config = format!(
            "daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr notice;\nuser root;\n\
             events {{ worker_connections 256; }}\n\
             http {{ {format}\naccess_log {0}/access.log liveqos; keepalive_requests 10000; sendfile on;\n\
             server {{ listen 127.0.0.1:{port}; root {0}; }} }}\n",
            folder.path().display()
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = command("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(file).args(["-e", "stderr"]);
        let program = Program::start("nginx", &mut command, folder.path(), false);
        let reachable = async || TcpStream::connect(("127.0.0.1", port)).await.ok();
        wait::until("nginx", Duration::from_secs(10), reachable).await;
        Self { _program: program, port, _reserved: reserved, folder }
    }

    pub(crate) async fn daemon(&self) -> Daemon {
        let log = self.folder.path().join("access.log");
        let config = format!("[[logs]]\npath = \"{}\"\napp = \"live\"\n", log.display());
        Daemon::start_in(self.folder.path(), &config).await
    }
}

/// What a viewer counted itself.
#[derive(Default)]
pub(crate) struct Count {
    bytes: AtomicU64,
    /// From asking for the last segment to its last byte, ms.
    took: AtomicU64,
}

/// Watches until it is aborted: a segment every two seconds, or as soon as the one before is there; reads so many bytes
/// a second.
pub(crate) async fn watch(port: u16, sid: usize, bytes_per_second: Option<u64>, count: Arc<Count>) {
    let socket = TcpSocket::new_v4().unwrap();
    if bytes_per_second.is_some() {
        // What the kernel takes for a player that does not read is not with the player yet: let it be little.
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    }
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    for number in 0.. {
        let asked = Instant::now();
        let cmcd = format!("d%3D2000%2Cot%3Dav%2Csid%3D%22v{sid}%22%2Csf%3Dh%2Cst%3Dl");
        let path = format!("/hls/class1/{}.ts?CMCD={cmcd}", number % SEGMENTS);
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nUser-Agent: viewer\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        answer(&mut stream, bytes_per_second, &count).await;
        count.took.store(asked.elapsed().as_millis() as u64, Ordering::Relaxed);
        tokio::time::sleep(PLAY_TIME.saturating_sub(asked.elapsed())).await;
    }
}

async fn answer(stream: &mut TcpStream, bytes_per_second: Option<u64>, count: &Count) {
    let begun = Instant::now();
    let (mut buffer, mut read, mut head) = (vec![0; 8 * 1024], 0_u64, None);
    while head.is_none_or(|head: u64| read < head + SEGMENT as u64) {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "nginx closed the connection");
        let end = buffer[..length].windows(4).position(|four| four == b"\r\n\r\n");
        head = head.or(end.map(|end| read + end as u64 + 4));
        read += length as u64;
        count.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if let Some(rate) = bytes_per_second {
            let due = Duration::from_secs_f64(read as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        }
    }
}

/// The leg to the HLS viewers of the class in its newest sample.
pub(crate) async fn leg(daemon: &Daemon) -> Option<Value> {
    let session = daemon.session("live/class1").await?;
    let legs = session["legs"].as_array()?.clone();
    legs.into_iter().find(|leg| leg["leg"].as_str().is_some_and(|leg| leg.contains("hls")))
}

/// The least, median and greatest `$tcpinfo_rtt` of the log, in seconds.
pub(crate) fn logged_rtt(folder: &Path) -> [f64; 3] {
    let log = std::fs::read_to_string(folder.join("access.log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut rtts: Vec<f64> = lines.filter_map(|line| line["rtt_us"].as_str()?.parse().ok()).collect();
    rtts.sort_by(f64::total_cmp);
    [0, rtts.len() / 2, rtts.len() - 1].map(|at| rtts[at] / 1e6)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_viewer_of_an_edge_is_late_by_as_much_as_it_counts_itself() {
    let _alone = wait::alone().await;
    let edge = Edge::start().await;
    let daemon = edge.daemon().await;
    let mut viewers = JoinSet::new();
    let slow = Arc::new(Count::default());
    for sid in 0..9 {
        viewers.spawn(watch(edge.port, sid, None, Arc::default()));
    }
    viewers.spawn(watch(edge.port, 9, Some(SLOW), Arc::clone(&slow)));

    // Each answer takes it four seconds for two seconds of media: two seconds late, of which its own kernel holds back
    // what fits there.
    let known = wait::until("a late viewer", PATIENCE, async || {
        assert!(viewers.try_join_next().is_none(), "a viewer ended");
        let leg = leg(&daemon).await?;
        let max = leg["latency_seconds"]["max"].as_f64()?;
        (max > 1.5).then_some((leg, max, slow.took.load(Ordering::Relaxed)))
    })
    .await;
    let (leg, max, took) = known;
    let own = took as f64 / 1e3 - PLAY_TIME.as_secs_f64();
    println!("late by the daemon {max:.3} s, by the viewer's own count {own:.3} s");
    assert!((max - own).abs() < LOOK + f64::from(RECEIVE_BUFFER) * 2.0 / SLOW as f64, "{max} beside {own}");
    assert!(leg["latency_seconds"]["p50"].as_f64().unwrap() < 0.1, "nine of ten are not late: {leg}");
    assert!(leg["latency_seconds"]["p95"].as_f64().unwrap() > 0.2, "{leg}");
    assert_eq!((&leg["viewers"], &leg["coverage_ratio"]), (&10.into(), &1.into()), "{leg}");
    assert_eq!(leg["sources"]["latency_seconds"], "estimated");
    assert_eq!(
        (&leg["sources"]["packet_loss_ratio"], &leg["sources"]["rtt_seconds"]),
        (&"server".into(), &"server".into())
    );
    assert!(leg["packet_loss_ratio"].as_f64().unwrap() < 0.01, "loopback loses nothing: {leg}");
    let page = daemon.metrics().await;
    let port = format!("port=\"{}\"", edge.port);
    let connections = |class: &str| value(&page, "liveqos_listener_connections", &[&port, class]);
    assert_eq!((connections("class=\"known\""), connections("class=\"unknown\"")), (Some(10.0), Some(0.0)));

    // A connection without a request belongs to no class.
    let _idle = TcpStream::connect(("127.0.0.1", edge.port)).await.unwrap();
    wait::until("an unknown connection", PATIENCE, async || {
        let page = daemon.metrics().await;
        value(&page, "liveqos_listener_connections", &[&port, "class=\"unknown\""]).filter(|count| *count > 0.5)
    })
    .await;
    viewers.abort_all();
}

const SEGMENTS: usize = 8;
const PLAY_TIME: Duration = Duration::from_secs(2);
/// Two seconds at 1.5 Mbit/s.
const SEGMENT: usize = 375_000;
/// Half the media's rate.
const SLOW: u64 = 93_750;
const RECEIVE_BUFFER: u32 = 8 * 1024;
/// Seconds between two polls of the kernel's sockets.
const LOOK: f64 = 0.5;
const PATIENCE: Duration = Duration::from_secs(40);
