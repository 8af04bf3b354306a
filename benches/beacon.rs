//! Reports of players that the daemon takes in a second of processor time, beside a bare server of the same HTTP
//! library that answers each of the same requests with 204 and reads nothing of it, in the same run and over loopback.
//! One report a wake shows what a wake costs, many show the report. `cargo bench --bench beacon`; with `-- --test` a
//! few reports.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use liveqos::app::App;
use liveqos::config::Config;
use liveqos::engine::RecordTo;
use liveqos::players::Key;

/// Reports that are sent together: alone, as many as come to an average node in one rest of the hall, and very many.
const TOGETHER: [usize; 3] = [1, 6, 64];
/// Of both servers in turn, so that a busy machine is busy for both.
const ROUNDS: usize = 20;
/// Longer than the hall rests.
const SETTLE: Duration = Duration::from_millis(40);
/// A viewer's reports; more would speak for more time than passed.
const REPORTS: usize = 32;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let reports = if std::env::args().any(|argument| argument == "--test") { 3 } else { 4_000 };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let key = Key::new(&[7; 32]).expect("long enough");
    let token = key.sign("class1", liveqos::platform::clock::now() + Duration::from_hours(1));
    let (config, unrecorded) = (config(), RecordTo::default());
    let start = App::start_with(&config, Some(key), liveqos_probes::KINDS, &unrecorded, || {});
    let app = runtime.block_on(start).expect("it starts");
    let servers = [("players", app.ingest_address().expect("configured")), ("bare", bare())];
    let mut next = 0;
    for together in TOGETHER {
        let [ours, bare] = servers.map(|(thread, address)| Talk::begin(thread, address, together));
        let mut talks = [ours, bare];
        for _ in 0..ROUNDS {
            for talk in &mut talks {
                let rounds = next..next + (reports / ROUNDS / together).max(1);
                next = rounds.end;
                talk.turn(rounds, &token);
            }
        }
        let [ours, bare] = talks.map(|talk| talk.micros_a_report());
        println!("{together:>2} at once: {ours:>6.1} µs a report, bare {bare:>6.1} µs: {:.2} x", ours / bare);
    }
    runtime.block_on(app.stop());
}

fn config() -> Config {
    let text = "listen = '127.0.0.1:0'\ndiscover = false\n[kernel]\ntcp_info = false\n[ingest]\nlisten = '127.0.0.1:0'\nrate_per_second = 1000000\nburst = 1000000\n";
    toml::from_str(text).expect("good settings")
}

/// A server that answers 204.
fn bare() -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("it listens");
    let serve = async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            let answer = service_fn(async |_: Request<Incoming>| {
                let mut answer = Response::new(Empty::<Bytes>::new());
                *answer.status_mut() = StatusCode::NO_CONTENT;
                Ok::<_, Infallible>(answer)
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    };
    std::thread::Builder::new().name("bare".to_owned()).spawn(move || runtime.block_on(serve)).expect("a thread");
    address
}

/// Reports over some connections, and what they cost the server's thread.
struct Talk {
    /// `schedstat` of its thread.
    thread: PathBuf,
    connections: Vec<TcpStream>,
    used: Duration,
    reports: usize,
}

impl Talk {
    fn begin(thread: &'static str, address: SocketAddr, together: usize) -> Self {
        let connect = || TcpStream::connect(address).expect("it listens");
        let connections = std::iter::repeat_with(connect).take(together).collect();
        Self { thread: thread_of(thread), connections, used: Duration::ZERO, reports: 0 }
    }

    fn turn(&mut self, rounds: std::ops::Range<usize>, token: &str) {
        let began = self.processor_time();
        for round in rounds {
            self.round(token, round);
        }
        // What it does after the last answer is its own too.
        std::thread::sleep(SETTLE);
        self.used += self.processor_time().saturating_sub(began);
    }

    /// One report over each connection.
    fn round(&mut self, token: &str, round: usize) {
        for (number, stream) in self.connections.iter_mut().enumerate() {
            let body = format!(
                "{{\"sessionId\":\"class1\",\"viewer\":\"{:08x}-0000-4000-8000-{number:012x}\",\"sequence\":{},\"protocol\":\"webrtc\",\"exposure\":0.0,\"freezeCount\":0,\"totalFreezesDuration\":0.0,\"framesDecoded\":150,\"bytesReceived\":94000,\"packetsReceived\":800,\"packetsLost\":0,\"roundTripTime\":0.08}}",
                round / REPORTS,
                round % REPORTS
            );
            let head = format!(
                "POST /v1/beacon?token={token} HTTP/1.1\r\nHost: node\r\nContent-Type: text/plain;charset=UTF-8\r\nOrigin: https://school.example\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).expect("it reads");
        }
        for stream in &mut self.connections {
            let mut answer = [0; 1_024];
            let count = stream.read(&mut answer).expect("an answer");
            let answer = String::from_utf8_lossy(&answer[..count]);
            assert!(answer.starts_with("HTTP/1.1 204") && answer.ends_with("\r\n\r\n"), "{answer}");
        }
        self.reports += self.connections.len();
    }

    /// Since its thread started.
    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(&self.thread).expect("it runs");
        Duration::from_nanos(stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("nanoseconds"))
    }

    fn micros_a_report(&self) -> f64 {
        self.used.as_secs_f64() * 1e6 / self.reports as f64
    }
}

/// Where the kernel tells of this process's thread of that name, which the thread may not have taken yet.
fn thread_of(name: &str) -> PathBuf {
    let look = |_| {
        let mut threads = std::fs::read_dir("/proc/self/task").expect("proc").flatten().map(|entry| entry.path());
        let is_it = |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|told| told.trim() == name);
        let found = threads.find(is_it);
        if found.is_none() {
            std::thread::sleep(SETTLE);
        }
        found
    };
    (0..100).find_map(look).expect("the server's thread").join("schedstat")
}
