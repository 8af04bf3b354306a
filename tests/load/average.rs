//! An average node: 20 classes, 1,400 viewers whose players report every 5 s over connections that are kept.

use std::time::{Duration, Instant};

use liveqos::token::Key;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::daemon::Daemon;
use super::program::free_port;
use super::report::{mib, share, threads};
use super::usage::{Cpu, memory};
use super::writer::now;
use super::{asked, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_average_node() {
    let _alone = wait::alone().await;
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, KEY).unwrap();
    let daemon =
        Daemon::start(folder.path(), port, &format!("discover = false\n[beacon]\nkey_file = {key_file:?}\n")).await;
    let pid = daemon.program.child.id();
    tokio::time::sleep(SETTLE).await;
    let (at_rest, _) = memory(pid);
    let key = Key::new(KEY).unwrap();
    let expiry = liveqos::clock::now() + Duration::from_hours(1);
    let tokens: Vec<String> = (0..CLASSES).map(|class| key.sign(&format!("class{class}"), expiry)).collect();
    let connections = CONNECTIONS.map(|number| {
        let mine = (number..VIEWERS).step_by(CONNECTIONS.len());
        let requests = mine.map(|viewer| request(viewer, &tokens[viewer % CLASSES])).collect::<Vec<_>>();
        tokio::spawn(report(port, requests, number))
    });
    let connections: Vec<_> = connections.collect();
    tokio::time::sleep(SETTLE).await;
    let (was, began) = (Cpu::of(pid), Instant::now());
    tokio::time::sleep(Duration::from_secs(asked("LOAD_SECONDS", 60, 10))).await;
    let (used, took) = (Cpu::of(pid).since(&was), began.elapsed());
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
    assert_eq!(sessions.len(), CLASSES, "all classes are live");
    for connection in connections {
        assert!(!connection.is_finished(), "no report was refused");
        connection.abort();
    }
}

/// Posts each request every [`EVERY`], spread over that time; ends only where one is refused.
async fn report(port: u16, requests: Vec<Vec<u8>>, number: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = [0; 1_024];
    let pause = EVERY / requests.len() as u32;
    tokio::time::sleep(pause * number as u32 / CONNECTIONS.len() as u32).await;
    let mut ticks = tokio::time::interval(pause);
    loop {
        for request in &requests {
            ticks.tick().await;
            stream.write_all(request).await.unwrap();
            let count = stream.read(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer[..count]);
            assert!(answer.starts_with("HTTP/1.1 204"), "at {}: {answer}", now());
        }
    }
}

fn request(viewer: usize, token: &str) -> Vec<u8> {
    let body = format!(
        "{{\"sessionId\":\"class{}\",\"viewer\":\"{viewer:08x}-0000-4000-8000-000000000000\",\"protocol\":\"webrtc\",\"exposure\":5.0,\"freezeCount\":0,\"totalFreezesDuration\":0.0,\"framesDecoded\":150,\"bytesReceived\":940000,\"packetsReceived\":800,\"packetsLost\":0,\"deliveryLatency\":0.08}}",
        viewer % CLASSES
    );
    let head = format!(
        "POST /v1/beacon HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

const KEY: &[u8] = &[7; 32];
const CLASSES: usize = 20;
const VIEWERS: usize = 1_400;
/// As an edge's proxy keeps them.
const CONNECTIONS: std::ops::Range<usize> = 0..700;
const EVERY: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(10);
