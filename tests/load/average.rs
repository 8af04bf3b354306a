//! An average node: 20 classes, 1,400 viewers whose players report every 5 s over connections that are kept.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use liveqos::players::Key;
use liveqos_testkit::daemon::Launch;
use liveqos_testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::report::{mib, share, threads};
use super::usage::{Cpu, memory};
use super::writer::now;
use super::{asked, measured};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_average_node() {
    let _alone = wait::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, KEY).unwrap();
    let config = format!("discover = false\n[beacon]\nkey_file = {key_file:?}\n");
    let daemon = Launch::new(&config).folder(folder.path()).program(&measured()).ready().await;
    let address = daemon.address;
    let pid = daemon.program.child.id();
    tokio::time::sleep(SETTLE).await;
    let (at_rest, _) = memory(pid);
    let key = Key::new(KEY).unwrap();
    let expiry = liveqos::platform::clock::now() + Duration::from_hours(1);
    let tokens: Vec<String> = (0..CLASSES).map(|class| key.sign(&format!("class{class}"), expiry)).collect();
    let answered = Arc::default();
    let connections = CONNECTIONS.map(|number| {
        let mine = (number..VIEWERS).step_by(CONNECTIONS.len());
        let viewers = mine.map(|viewer| Viewer::new(viewer, &tokens[viewer % CLASSES])).collect::<Vec<_>>();
        tokio::spawn(report(address, viewers, number, Arc::clone(&answered)))
    });
    let connections: Vec<_> = connections.collect();
    tokio::time::sleep(SETTLE).await;
    let (was, began) = (Cpu::of(pid), Instant::now());
    answered.lock().unwrap().clear();
    let until = began + Duration::from_secs(asked("LOAD_SECONDS", 60, 10));
    let mut others = Vec::new();
    while Instant::now() < until {
        tokio::time::sleep(OTHER_EVERY).await;
        others.push(other(address).await);
    }
    let (used, took) = (Cpu::of(pid).since(&was), began.elapsed());
    let mut answers = std::mem::take(&mut *answered.lock().unwrap());
    let (resident, peak) = memory(pid);
    let sessions = daemon.json("/api/v1/sessions").await.unwrap();
    let sessions = sessions["sessions"].as_array().unwrap();
    println!(
        "average node, {VIEWERS} viewers over {} connections: {:.2} % of a core, {:.2} % of two (must 1, aim 0.5); {:.1} MiB, peak {:.1}, at rest {:.1}: {:.0} B a viewer, its connection included",
        CONNECTIONS.len(),
        share(used.all, took),
        share(used.all, took) / 2.0,
        mib(resident),
        mib(peak),
        mib(at_rest),
        resident.saturating_sub(at_rest) as f64 / VIEWERS as f64,
    );
    println!("  by thread: {}", threads(&used, took));
    println!(
        "  {} reports, {:.0} µs of processor and {:.2} switches of threads each, answered after {}; others after {}",
        answers.len(),
        used.all.as_secs_f64() * 1e6 / answers.len() as f64,
        used.turns as f64 / answers.len() as f64,
        millis(&mut answers),
        millis(&mut others),
    );
    assert_eq!(sessions.len(), CLASSES, "all classes are live");
    for connection in connections {
        assert!(!connection.is_finished(), "no report was refused");
        connection.abort();
    }
}

/// Lets each viewer report every [`EVERY`], spread over that time; ends only where a report is refused.
async fn report(address: SocketAddr, mut viewers: Vec<Viewer>, number: usize, answered: Arc<Mutex<Vec<Duration>>>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = [0; 1_024];
    let pause = EVERY / viewers.len() as u32;
    tokio::time::sleep(pause * number as u32 / CONNECTIONS.len() as u32).await;
    let mut ticks = tokio::time::interval(pause);
    loop {
        for viewer in &mut viewers {
            ticks.tick().await;
            let request = viewer.request();
            let sent = Instant::now();
            stream.write_all(&request).await.unwrap();
            let count = stream.read(&mut answer).await.unwrap();
            answered.lock().unwrap().push(sent.elapsed());
            let answer = String::from_utf8_lossy(&answer[..count]);
            assert!(answer.starts_with("HTTP/1.1 204"), "at {}: {answer}", now());
        }
    }
}

/// How long somebody waits who is no player, over a connection of its own.
async fn other(address: SocketAddr) -> Duration {
    let sent = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
    let mut answer = [0; 1_024];
    let count = stream.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..count]));
    sent.elapsed()
}

/// Median, 99th of a hundred and greatest.
fn millis(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1_000.0;
    format!("{:.1} ms (median), {:.1} (p99), {:.1} (max)", at(0.5), at(0.99), at(1.0))
}

/// One that watches: what a browser's page with the player script posts, as the node's nginx passes it on.
struct Viewer {
    head: String,
    mark: String,
    sequence: u32,
}

impl Viewer {
    fn new(number: usize, token: &str) -> Self {
        let network = number / 200;
        let head = format!(
            "POST /v1/beacon?token={token} HTTP/1.1\r\nX-Forwarded-For: 198.51.{network}.{}\r\nHost: 127.0.0.1:9480\r\n{BROWSER}",
            number % 200
        );
        let class = number % CLASSES;
        let mark = format!("\"sessionId\":\"class{class}\",\"viewer\":\"{number:08x}-0000-4000-8000-000000000000\"");
        Self { head, mark, sequence: 0 }
    }

    fn request(&mut self) -> Vec<u8> {
        let Self { head, mark, sequence } = self;
        let body = format!("{{{mark},\"sequence\":{sequence},{SUMS}}}");
        *sequence += 1;
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }
}

const BROWSER: &str = "sec-ch-ua-platform: \"Windows\"\r\nUser-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\nsec-ch-ua: \"Chromium\";v=\"156\", \"Not)A;Brand\";v=\"8\"\r\nContent-Type: text/plain;charset=UTF-8\r\nsec-ch-ua-mobile: ?0\r\nAccept: */*\r\nOrigin: https://school.example\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: https://school.example/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: zh-CN,zh;q=0.9\r\n";
const SUMS: &str = "\"protocol\":\"webrtc\",\"exposure\":5.0,\"freezeCount\":0,\"totalFreezesDuration\":0.0,\"framesDecoded\":150,\"bytesReceived\":940000,\"packetsReceived\":800,\"packetsLost\":0,\"roundTripTime\":0.08";
const KEY: &[u8] = &[7; 32];
const CLASSES: usize = 20;
const VIEWERS: usize = 1_400;
/// As an edge's proxy keeps them.
const CONNECTIONS: std::ops::Range<usize> = 0..700;
const EVERY: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(10);
const OTHER_EVERY: Duration = Duration::from_secs(1);
