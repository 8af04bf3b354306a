//! Processor time for each report of a player, beside a bare server of the same HTTP library that answers the same
//! requests with 204 and does not read them, in the same run and over loopback. Single reports show the cost of a
//! wakeup, many together the cost of a report. `cargo bench --bench beacon`; with `-- --test` only a few reports are
//! sent.

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

/// Reports sent together: one, as many as an average node gets in one poll interval of the batching runtime, and many.
const TOGETHER: [usize; 3] = [1, 6, 64];
/// Rounds, in which both servers take turns, so that other load on the machine affects both.
const ROUNDS: usize = 20;
/// Longer than the poll interval of the batching runtime.
const SETTLE: Duration = Duration::from_millis(40);
/// Reports of one viewer; further ones would claim more time than passed.
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
        let [ours, bare] = servers.map(|(thread, address)| Client::begin(thread, address, together));
        let mut clients = [ours, bare];
        for _ in 0..ROUNDS {
            for client in &mut clients {
                let rounds = next..next + (reports / ROUNDS / together).max(1);
                next = rounds.end;
                client.turn(rounds, &token);
            }
        }
        let [ours, bare] = clients.map(|client| client.micros_a_report());
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

/// Sends reports over some connections, and measures what they cost the server's thread.
struct Client {
    /// `/proc/self/task/*/schedstat` of the server's thread.
    thread: PathBuf,
    connections: Vec<TcpStream>,
    used: Duration,
    reports: usize,
}

impl Client {
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
        // Work after the last response counts too.
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

    /// Processor time of the server's thread since its start.
    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(&self.thread).expect("it runs");
        Duration::from_nanos(stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("nanoseconds"))
    }

    fn micros_a_report(&self) -> f64 {
        self.used.as_secs_f64() * 1e6 / self.reports as f64
    }
}

/// The `schedstat` file of this process's thread of that name; a thread that just started may not have its name yet.
fn thread_of(name: &str) -> PathBuf {
    let look = |_| {
        let mut threads = std::fs::read_dir("/proc/self/task").expect("proc").flatten().map(|entry| entry.path());
        let is_it = |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let found = threads.find(is_it);
        if found.is_none() {
            std::thread::sleep(SETTLE);
        }
        found
    };
    (0..100).find_map(look).expect("the server's thread").join("schedstat")
}
