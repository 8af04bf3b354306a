//! The endpoints for players, as browsers and untrusted senders use them: responses, limits, cross-origin requests.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::time::Instant;

use liveqos::platform::clock;
use liveqos::players::Key;
use liveqos_testkit::daemon::{Daemon, file, value};
use liveqos_testkit::ports::udp_address;
use liveqos_testkit::wait::until_blocking;

pub(crate) const KEY: &str = "a key of at least thirty-two bytes";
const CMCD: &str = "content-type: application/cmcd\r\n";

#[test]
fn a_page_of_another_origin_may_report_and_too_many_reports_get_retry_after() {
    let daemon = Daemon::start("[ingest]\nburst = 5\nrate_per_second = 1\norigins = [\"https://school.example\"]\n");
    let preflight = "origin: https://school.example\r\naccess-control-request-method: POST\r\n\
                     access-control-request-headers: content-type,authorization\r\n";
    for path in ["/v1/beacon", "/v1/cmcd"].repeat(5) {
        let (status, head, _) = daemon.ask_with("OPTIONS", path, preflight, "");
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("access-control-allow-origin: https://school.example"), "{head}");
        assert!(head.contains("access-control-allow-methods: get,post"), "{head}");
        assert!(head.contains("content-type,authorization"), "{head}");
    }
    let (_, head, _) =
        daemon.ask_with("OPTIONS", "/v1/beacon", &preflight.replace("school.example", "other.example"), "");
    assert!(!head.contains("access-control-allow-origin"), "{head}");
    let own = "origin: https://school.example\r\n";
    let post = || daemon.ask_with("POST", "/v1/beacon", own, "{}");
    let first: Vec<_> = (0..5).map(|_| post()).collect();
    assert!(
        first.iter().all(|(status, ..)| *status == 404),
        "the beacon is closed, the rate is not exceeded: {first:?}"
    );
    let (status, head, body) = until_blocking("a refusal", || Some(post()).filter(|(status, ..)| *status == 429));
    assert!(head.contains("retry-after: ") && body.contains("\"too_often\""), "{status} {head} {body}");
    assert!(
        head.contains("access-control-allow-origin: https://school.example"),
        "the page can read the refusal: {head}"
    );
    // Other clients are not limited by it: a trusted proxy names the client.
    let other = "x-forwarded-for: 192.0.2.7\r\n";
    assert_eq!(daemon.ask_with("POST", "/v1/beacon", other, "{}").0, 404);
    assert_eq!(daemon.ask("GET", "/livez", "").0, 200);
    assert!(daemon.shed("source_rate") >= 1.0);
}

#[test]
fn event_reports_get_the_responses_of_the_standard() {
    let key = file(KEY);
    let daemon = Daemon::start(&format!("[beacon]\nkey_file = {:?}\n", key.path()));
    let now = clock::now().millis() / 1_000;
    let token = |id: &str, expiry: u64| {
        let expiry = liveqos_core::model::Timestamp::from_secs(expiry);
        Key::new(KEY.as_bytes()).expect("long enough").sign(id, expiry)
    };
    let target = |id: &str, token: &str| format!("/v1/cmcd?session_id={id}&token={token}");
    let (good, old) = (token("s1", now + 60), token("s1", now - 60));
    let report = plays("v1", 0);
    for (path, lines, body, status, mark) in [
        (target("s1", &good), CMCD, report.as_str(), 204, ""),
        (target("s1", &good), "content-type: text/cmcd\r\n", "\n e=t,sid=\"a\",sn=0,ts=5,v=2 \n\n", 204, ""),
        (target("s1", &good) + "&CMCD=e%3Dt%2Csid%3D%22a%22%2Cv%3D2", "", "", 204, ""),
        (target("s1", &good), "cmcd-session: sid=\"a\"\r\n", "", 204, ""),
        (target("s2", &good), CMCD, &report, 401, "bad_token"),
        (target("s1", &old), CMCD, &report, 410, "expired"),
        ("/v1/cmcd".to_owned(), CMCD, &report, 401, "bad_token"),
        (format!("/v1/cmcd?token={good}"), CMCD, &report, 400, "\"field\":\"session_id\""),
        (target("s1", &good), "content-type: application/json\r\n", &report, 415, "media_type"),
        (target("s1", &good), CMCD, "nothing\n", 400, "unreadable"),
        (target("s1", &good), CMCD, "sid=\"a\",v=3\n", 400, "unreadable"),
        (target("s1", &good), CMCD, &"x".repeat(70_000), 413, "body_too_large"),
        (target("s1", &good), "content-encoding: gzip\r\ncontent-type: application/cmcd\r\n", "x", 415, "body_packed"),
    ] {
        let (code, _, response) = daemon.ask_with("POST", &path, lines, body);
        assert_eq!(code, status, "{path} {lines} {response}");
        assert!(response.contains(mark), "{path}: {response}");
    }
    assert_eq!(daemon.ask("GET", &(target("s1", &good) + "&CMCD=sid%3D%22a%22"), "").0, 204);
    assert_eq!(daemon.ask("PUT", &target("s1", &good), "").0, 405);
    until_blocking("the class of the reports", || viewers(&daemon, "s1").filter(|viewers| *viewers >= 1));
    // The platform ends the class: reports get 410, until the class is announced again.
    assert_eq!(daemon.ask("DELETE", "/api/v1/sessions/s1", "").0, 200);
    let (code, _, response) = daemon.ask_with("POST", &target("s1", &good), CMCD, &report);
    assert!(code == 410 && response.contains("\"ended\""), "{code} {response}");
    assert_eq!(daemon.ask("PUT", "/api/v1/sessions/s1", "").0, 200);
    assert_eq!(daemon.ask_with("POST", &target("s1", &good), CMCD, &report).0, 204);
}

#[test]
fn without_a_key_only_configured_networks_may_report() {
    let daemon = Daemon::start("");
    let (code, body) = daemon.ask("POST", "/v1/cmcd", "");
    assert!(code == 404 && body.contains("cmcd.without_token_from"), "{body}");
    drop(daemon);
    let daemon = Daemon::start("[cmcd]\nwithout_token_from = [\"127.0.0.1\"]\n");
    assert_eq!(daemon.ask_with("POST", "/v1/cmcd", CMCD, &plays("v1", 0).replace("v=2", "cid=\"c9\",v=2")).0, 204);
    until_blocking("the class that cid names", || viewers(&daemon, "c9").filter(|viewers| *viewers == 1));
    let sources = daemon.ask("GET", "/api/v1/sources", "").1;
    assert!(sources.contains("\"kind\":\"cmcd\""), "{sources}");
}

#[test]
fn event_posts_and_logged_requests_of_a_viewer_are_joined() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    std::fs::write(&log, "").expect("written");
    let key = file(KEY);
    let daemon = Daemon::start(&format!(
        "[beacon]\nkey_file = {:?}\n[cmcd]\nlog = \"edge\"\nwithout_token_from = [\"127.0.0.1\"]\n\
         [[logs]]\nname = \"other\"\nlisten = \"udp://127.0.0.1:0\"\n\
         [[logs]]\nname = \"edge\"\npath = {log:?}\napp = \"live\"\n",
        key.path()
    ));
    until_read(&daemon);
    let now = clock::now().millis();
    // The first report arrives before the log line of the first request.
    let first = format!("e=ps,sid=\"a\",sn=0,sta=p,ts={now}\ne=ps,sid=\"a\",sn=1,sta=r,ts={}", now + 300);
    assert_eq!(daemon.ask_with("POST", "/v1/cmcd", CMCD, &first).0, 204);
    append(
        &log,
        &format!("{{\"t\":{},\"st\":200,\"b\":9,\"u\":\"/hls/c1/7.ts\",\"q\":\"sid%3D%22a%22\"}}\n", now / 1_000),
    );
    // A repeated report changes nothing; the next one ends the stall after 1.2 s.
    for _ in 0..3 {
        assert_eq!(daemon.ask_with("POST", "/v1/cmcd", CMCD, &first).0, 204);
    }
    let last = format!("e=ps,sid=\"a\",sn=2,sta=p,ts={}\ne=t,sid=\"a\",sn=3,sta=p,ts={}", now + 1_500, now + 4_000);
    assert_eq!(daemon.ask_with("POST", "/v1/cmcd", CMCD, &last).0, 204);
    until_blocking("the stall", || {
        let page = daemon.ask("GET", "/metrics", "").1;
        let stalled = value(&page, "liveqos_stutter_seconds_total", &[]).unwrap_or_default();
        ((stalled - 1.2).abs() < 0.01).then_some(())
    });
    assert_eq!(viewers(&daemon, "live/c1"), Some(1), "the log named the class");
    assert!((daemon.shed("log_event_repeated") - 6.0).abs() < 0.1, "two reports were repeated three times");
    let (_, body) = daemon.ask("GET", "/api/v1/sessions", "");
    assert_eq!(body.matches("\"session_id\"").count(), 1, "one class, not two: {body}");
}

#[test]
fn lines_are_received_by_syslog() {
    let address = udp_address();
    let daemon = Daemon::start(&format!(
        "[[logs]]\nlisten = \"udp://{address}\"\nclass = \"pattern:/edge/{{class}}/...\"\napp = \"live\"\n"
    ));
    until_read(&daemon);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let send = |text: &str| sender.send_to(text.as_bytes(), address).expect("sent");
    send("nonsense");
    until_blocking("the class of the datagrams", || {
        let now = clock::now().millis() / 1_000;
        let line = format!("{{\"t\":{now},\"st\":200,\"b\":9,\"u\":\"/edge/c1/v2/7\",\"q\":\"sid%3D%22a%22\"}}");
        send(&format!("<190>Nov 23 15:04:05 nginx: {line}"));
        viewers(&daemon, "live/c1").filter(|viewers| *viewers == 1)
    });
    until_blocking("the malformed datagram", || ((daemon.shed("syslog_form") - 1.0).abs() < 0.1).then_some(()));
}

#[test]
fn players_have_an_address_of_their_own_with_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = certificate(folder.path());
    let daemon = Daemon::start(&format!(
        "[ingest]\nlisten = \"127.0.0.1:0\"\nmax_connections = 2\ntls = {{ cert = {cert:?}, key = {key:?} }}\n\
         [cmcd]\nwithout_token_from = [\"127.0.0.1\"]\n"
    ));
    let address = daemon.logged_address("ingest");
    let ask = |path: &str, body: &str| {
        liveqos::platform::tls::install();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let pem = std::fs::read(&cert).expect("a certificate");
            let root = reqwest::Certificate::from_pem(&pem).expect("PEM");
            let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().expect("a client");
            let request = client.post(format!("https://localhost:{}{path}", address.port())).body(body.to_owned());
            let response = request.header("content-type", "application/cmcd").send().await;
            response.expect("a response").status().as_u16()
        })
    };
    assert_eq!(ask("/v1/cmcd", &plays("v1", 0)), 204);
    for path in ["/", "/metrics", "/api/v1/sessions", "/v1/hooks/x"] {
        assert_eq!(ask(path, ""), 404, "{path} is not for players");
    }
    // Two connections that never finish their handshake reach the limit; the third is closed at once.
    let _held = [0, 1].map(|_| TcpStream::connect(address).expect("accepted"));
    let mut third = TcpStream::connect(address).expect("accepted by the kernel");
    assert_eq!(third.read(&mut [0]).unwrap_or(0), 0, "closed");
    assert!(daemon.shed("ingest_connections") >= 1.0);
}

#[test]
fn players_are_served_by_a_thread_of_their_own() {
    const REPORTS: u64 = 200;
    let daemon = Daemon::start("[ingest]\nmax_connections = 1\n");
    let mut stream = TcpStream::connect(daemon.address).expect("it listens");
    let mut ask = |request: &str, status: &str| {
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut response = [0; 2_048];
        let count = stream.read(&mut response).expect("a response");
        let response = String::from_utf8_lossy(&response[..count]).to_ascii_lowercase();
        assert!(response.starts_with(status), "{response}");
        response
    };
    let report = "POST /v1/beacon HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    ask(report, "http/1.1 404");
    let (players, shell, began) = (turns(&daemon, "players"), turns(&daemon, "shell"), Instant::now());
    for _ in 0..REPORTS {
        ask(report, "http/1.1 404");
    }
    let (players, shell) = (turns(&daemon, "players") - players, turns(&daemon, "shell") - shell);
    // The other threads also tick: as often at rest, in the same time.
    let at_rest = turns(&daemon, "shell");
    std::thread::sleep(began.elapsed());
    let at_rest = turns(&daemon, "shell") - at_rest;
    assert!(
        players >= REPORTS && shell < REPORTS / 2 + 2 * at_rest,
        "scheduled {players} times for players, {shell} times for others, {at_rest} times at rest"
    );
    // A second connection of players exceeds the limit; other clients are not limited by it.
    let mut second = TcpStream::connect(daemon.address).expect("accepted by the kernel");
    second.write_all(report.as_bytes()).unwrap_or_default();
    assert_eq!(second.read(&mut [0]).unwrap_or(0), 0, "closed");
    assert!(daemon.shed("ingest_connections") >= 1.0);
    assert_eq!(daemon.ask("GET", "/livez", "").0, 200);
    // A player's connection that asks for something else is closed after the response.
    let response = ask("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", "http/1.1 200");
    assert!(response.contains("connection: close"), "{response}");
    stream.read_to_end(&mut Vec::new()).expect("the connection ends");
}

/// How often the kernel scheduled the threads of that name (`schedstat` of proc(5)).
fn turns(daemon: &Daemon, name: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.program.child.id())).expect("it runs");
    let threads = tasks.map(|task| task.expect("a thread").path());
    let read = |path| std::fs::read_to_string(path).expect("proc(5)");
    let ours = threads.filter(|thread| read(thread.join("comm")).trim() == name);
    let turns = |thread: std::path::PathBuf| {
        let stat = read(thread.join("schedstat"));
        stat.split_whitespace().nth(2).and_then(|turns| turns.parse::<u64>().ok()).expect("a count")
    };
    ours.map(turns).sum()
}

/// Two reports of a viewer that plays.
fn plays(sid: &str, sn: u32) -> String {
    let now = clock::now().millis();
    format!("e=ps,sid=\"{sid}\",sn={sn},sta=p,ts={now},v=2\ne=t,sid=\"{sid}\",sn={},sta=p,ts={now},v=2\n", sn + 1)
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::File::options().append(true).open(path).expect("the log");
    file.write_all(text.as_bytes()).expect("room");
}

/// Waits until every log was read once.
fn until_read(daemon: &Daemon) {
    until_blocking("the first round of the logs", || {
        let sources = daemon.ask("GET", "/api/v1/sources", "").1;
        (!sources.contains("\"rounds\":0,")).then_some(())
    });
}

/// Viewers of a live class.
fn viewers(daemon: &Daemon, id: &str) -> Option<u64> {
    let (_, body) = daemon.ask("GET", "/api/v1/sessions", "");
    let all: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let class = all["sessions"].as_array()?.iter().find(|class| class["session_id"] == id)?;
    class["viewers"].as_u64()
}

/// A certificate for localhost, and its key.
fn certificate(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    (cert, key)
}
