//! The paths between nodes, with real QUIC over a relay that loses and delays: what is told is what the relay did,
//! strangers are refused by name, and a path that turns bad is told, explains what its classes suffer, and is over when
//! it heals.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use liveqos::demo::Impairment;
use liveqos::peers::{Credentials, NodeTlsSettings, PeerSettings, try_once};
use liveqos::platform::clock;
use liveqos_core::model::{
    Alert, Cause, Environment, Fact, Objectives, Observation, PlayerView, Protocol, ServerView, StreamKey, Subject,
    Total,
};
use liveqos_core::node::{ECHO_BYTES, PathFigures};
use liveqos_core::pipeline::Pipeline;
use liveqos_core::session::SessionTimeouts;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::cli::Daemon;
use super::player_listener::shed;
use crate::support::path_node::{Node, PATIENCE, edge, lossy, nodes, tls};
use crate::support::udp_relay::UdpRelay;

/// Echoes in a packet of this length: each takes 82 to 84 bytes, all else in it less than half of that. A busy node
/// sends several at once.
const fn echoes_in(length: usize) -> u64 {
    ((length - 20) / (ECHO_BYTES + 1)) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_and_round_trip_are_what_the_relay_did() {
    let (folder, delay) = (nodes(), Duration::from_millis(20));
    let origin = Node::origin(folder.path());
    let relay = UdpRelay::start(origin.address(), 7).await;
    relay.set(lossy(0.0, delay), lossy(0.0, delay));
    let edge = Node::start(&edge(folder.path(), relay.address));
    let healthy = edge.until("a healthy path", |path| path.sent >= 100).await;
    assert_eq!((healthy.lost_out, healthy.lost_back), (0, 0), "{healthy:?}");
    assert_eq!(relay.counts().map(|(_, lost)| lost.len()), [0, 0]);
    let least = healthy.figures.least_rtt_seconds.unwrap();
    assert!((0.04..0.08).contains(&least), "two ways of 20 ms: {least} s");

    relay.set(lossy(0.05, delay), lossy(0.15, delay));
    edge.until("many pings", |path| path.sent >= healthy.sent + 600).await;
    relay.set(lossy(0.0, delay), lossy(0.0, delay));
    let before = edge.path();
    let told = edge.until("all to be decided", |path| path.sent >= before.sent + 60).await;
    let [(out_seen, out_lost), (_, back_lost)] = relay.counts();
    let out_lost = out_lost.len() as u64;
    println!("there: {out_lost} of {out_seen} packets lost, told {} of {} pings", told.lost_out, told.sent);
    // Some packets carry no ping: handshake and acknowledgements.
    let out_other = out_seen - told.sent;
    assert!(told.lost_out <= out_lost && told.lost_out + out_other >= out_lost, "{told:?}");
    let echoes: u64 = back_lost.iter().map(|length| echoes_in(*length)).sum();
    println!(
        "back: {} packets lost with {echoes} echoes, told {} of {}",
        back_lost.len(),
        told.lost_back,
        told.arrived
    );
    assert_eq!(told.lost_back, echoes);
    let expected = |of: u64, ratio: f64| (of as f64 * ratio, 5.0 * (of as f64 * ratio).sqrt());
    for (lost, of, ratio) in
        [(told.lost_out, told.sent - healthy.sent, 0.05), (told.lost_back, told.arrived - healthy.arrived, 0.15)]
    {
        let (mean, slack) = expected(of, ratio);
        assert!((lost as f64 - mean).abs() < slack + 0.1 * mean, "{lost} lost of {of} at {ratio}");
    }
    let figures = told.figures;
    assert!(figures.back_loss_ratio > figures.out_loss_ratio && figures.loss_ratio() == figures.back_loss_ratio);
    assert!(edge.meters.shed.with_label_values(&["path_unrecognized"]).get() < 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_is_no_healthy_path_and_who_returns_is_heard_again() {
    let folder = nodes();
    let mut origin = Node::origin(folder.path());
    let relay = UdpRelay::start(origin.address(), 1).await;
    let edge = Node::start(&edge(folder.path(), relay.address));
    edge.until("a path", |path| path.figures.rtt_seconds.is_some()).await;
    // The relay swallows everything: a cut, by all that the edge can know.
    relay.set(lossy(1.0, Duration::ZERO), lossy(1.0, Duration::ZERO));
    let cut = edge.until("silence", |path| path.figures == PathFigures::default()).await;
    assert_eq!((cut.lost_out, cut.lost_back), (0, 0), "silence is not loss: {cut:?}");
    assert!(edge.table.reports(clock::now()).iter().all(|word| word.silent.is_some() && word.out.is_none()));
    relay.set(Impairment::default(), Impairment::default());
    let back = edge.until("the path again", |path| path.figures.rtt_seconds.is_some()).await;
    println!("lost by the gap: {} there, {} back", back.lost_out, back.lost_back);
    // The origin stops in good order: it takes leave, and the silence is no sign against the path.
    origin.tasks.shutdown().await;
    edge.until("the end", |path| path.figures == PathFigures::default()).await;
    drop(edge.table.reports(clock::now()));
    assert!(edge.table.reports(clock::now()).iter().all(|word| word.silent.is_none() && word.rtt.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_named() {
    let (folder, strange) = (nodes(), nodes());
    let origin = Node::origin(folder.path());
    let address = origin.address().to_string();
    let mixed = NodeTlsSettings { ca: tls(folder.path(), "edge").ca, ..tls(strange.path(), "edge") };
    let elsewhere = PeerSettings { server_name: "origin-2.example.com".to_owned(), ..PeerSettings::at(&address) };
    for (peer, tls, mark) in [
        (PeerSettings::at(&address), tls(strange.path(), "edge"), "its certificate is not trusted"),
        (PeerSettings::at(&address), mixed, "it does not trust this node's certificate"),
        (elsewhere, tls(folder.path(), "edge"), "its certificate is not trusted"),
    ] {
        let trouble = try_once(&peer, &Credentials::read(&tls).unwrap()).await.unwrap_err();
        assert!(trouble.reason == "certificate" && trouble.message.contains(mark), "{trouble:?}");
    }
    let good = Credentials::read(&tls(folder.path(), "edge")).unwrap();
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = PeerSettings::at(&deaf.local_addr().unwrap().to_string());
    assert_eq!(try_once(&nobody, &good).await.unwrap_err().reason, "timeout");
    assert_eq!(try_once(&PeerSettings::at("nobody.invalid:9481"), &good).await.unwrap_err().reason, "resolve");
    assert!(try_once(&PeerSettings::at(&address), &good).await.is_ok(), "who belongs there is let in");
    assert!(origin.meters.shed.with_label_values(&["path_refused"]).get() >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_hold_from_the_next_connection_on() {
    let (folder, new) = (nodes(), nodes());
    let origin = Node::origin(folder.path());
    let peer = PeerSettings::at(&origin.address().to_string());
    let [old, renewed] = [&folder, &new].map(|folder| Credentials::read(&tls(folder.path(), "edge")).unwrap());
    let edge = Node::start(&edge(folder.path(), origin.address()));
    edge.until("a path", |path| path.arrived > 0).await;
    for file in ["ca.pem", "origin.pem", "origin.key"] {
        std::fs::copy(new.path().join(file), folder.path().join(file)).unwrap();
    }
    origin.peers.renew(origin.peers.read().unwrap());
    assert!(try_once(&peer, &renewed).await.is_ok());
    assert_eq!(try_once(&peer, &old).await.unwrap_err().reason, "certificate");
    let before = edge.path();
    edge.until("the open connection goes on", |path| path.arrived >= before.arrived + 50).await;
    std::fs::write(folder.path().join("origin.key"), "nonsense").unwrap();
    let error = origin.peers.read().err().unwrap().to_string();
    assert!(error.contains("origin.key") && error.contains("PEM"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_datagrams_are_counted_and_nobody_else_suffers() {
    let folder = nodes();
    let origin = Node::origin(folder.path());
    let edge = Node::start(&edge(folder.path(), origin.address()));
    let Credentials { client, .. } = Credentials::read(&tls(folder.path(), "edge")).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let hostile = endpoint.connect_with(client, origin.address(), "localhost").unwrap().await.unwrap();
    for number in 0..4_000_u64 {
        let mut datagram = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(1 + number as usize % 40);
        datagram[0] = (number % 4) as u8;
        hostile.send_datagram(datagram.into()).unwrap();
        hostile.send_datagram(liveqos_core::node::ping::ping(u64::MAX - number).to_vec().into()).unwrap();
        if number % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let count = |reason: &str| origin.meters.shed.with_label_values(&[reason]).get();
    let began = Instant::now();
    while count("path_unrecognized") < 1.0 || count("path_echo_rate") < 1.0 {
        assert!(
            began.elapsed() < PATIENCE,
            "{} strange, {} too fast",
            count("path_unrecognized"),
            count("path_echo_rate")
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Random bytes at the socket itself.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..2_000_u64 {
        let packet = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(1 + number as usize % 160);
        socket.send_to(&packet, origin.address()).unwrap();
    }
    let before = edge.path();
    edge.until("echoes all the same", |path| path.arrived >= before.arrived + 100).await;
}

/// A free UDP port of this host.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn configuration(folder: &Path, node: &str, rest: &str) -> String {
    let NodeTlsSettings { cert, key, ca } = tls(folder, node);
    let [cert, key, ca] = [cert, key, ca].map(|file| file.display().to_string());
    format!(
        "[state]\ndir = \"\"\n[paths]\ninterval = \"20ms\"\n{rest}\n[paths.tls]\ncert = {cert:?}\nkey = {key:?}\nca = {ca:?}\n"
    )
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn json(daemon: &Daemon, path: &str) -> Value {
    serde_json::from_str(&daemon.ask("GET", path, "").1).unwrap()
}

fn alert(daemon: &Daemon, name: &str) -> Option<Value> {
    let alerts = json(daemon, "/api/v1/alerts");
    alerts["alerts"].as_array()?.iter().find(|alert| alert["alertname"] == name).cloned()
}

fn metric(daemon: &Daemon, name: &str) -> Option<f64> {
    let page = daemon.ask("GET", "/metrics", "").1;
    let line = page.lines().find(|line| line.starts_with(name) && line.contains("origin-1"))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// The whole program: a path turns bad, is told with its numbers, heals and is over; then the other node is killed.
#[test]
fn a_path_that_turns_bad_is_told_and_ends() {
    let (folder, port) = (nodes(), free_port());
    let listens = format!("listen = \"127.0.0.1:{port}\"");
    let mut origin = Daemon::start_with(&configuration(folder.path(), "origin", &listens));
    let runtime = Runtime::new().unwrap();
    let relay = runtime.block_on(UdpRelay::start(([127, 0, 0, 1], port).into(), 3));
    let address = relay.address;
    let tables = format!("peers = [{{ name = \"origin-1\", address = \"{address}\" }}]");
    let edge = Daemon::start_with(&configuration(folder.path(), "edge", &tables));
    let path = |edge: &Daemon| json(edge, "/api/v1/sources")["paths"][0].clone();
    until("six hundred pings", || (path(&edge)["sent"].as_u64()? >= 600).then_some(()));
    assert!(alert(&edge, "LivePathDegraded").is_none());
    assert_eq!(metric(&edge, "liveqos_path_loss_ratio"), Some(0.0));
    assert!(metric(&edge, "liveqos_path_rtt_seconds").unwrap() > 0.0);

    relay.set(lossy(0.2, Duration::ZERO), Impairment::default());
    let told = until("the alert", || alert(&edge, "LivePathDegraded"));
    assert_eq!((&told["peer"], &told["cause"]), (&"origin-1".into(), &"edge_path".into()), "{told}");
    assert_eq!(told["evidence"]["size_unit"], "pings sent there", "{told}");
    assert!(told["evidence"]["value"].as_f64().unwrap() > 0.005, "{told}");
    assert!(metric(&edge, "liveqos_path_loss_ratio").unwrap() > 0.005);
    relay.set(Impairment::default(), Impairment::default());
    until("its end", || alert(&edge, "LivePathDegraded").is_none().then_some(()));

    origin.child.kill().unwrap();
    let silent = until("the silence", || alert(&edge, "LiveSourceDown"));
    assert_eq!(silent["source"], "origin-1", "{silent}");
    assert_eq!(metric(&edge, "liveqos_path_loss_ratio"), None, "unknown is not healthy");
    assert_eq!(metric(&edge, "liveqos_path_rtt_seconds"), None);
    assert_eq!(metric(&edge, "liveqos_probe_up"), Some(0.0));
    assert!(alert(&edge, "LivePathDegraded").is_none(), "nor is it proven bad");
    assert!(shed(&edge, "path_unrecognized") < 1.0);
    let again = Daemon::start_with(&configuration(folder.path(), "origin", &listens));
    until("the path again", || metric(&edge, "liveqos_path_rtt_seconds"));
    until("the end of the silence", || alert(&edge, "LiveSourceDown").is_none().then_some(()));
    drop(again);
}

/// What a media server and players tell of four classes in this second, `stalled` of a hundred seconds of watching in
/// stalls.
fn tell_classes(second: u64, stalled: u32) -> Vec<Observation> {
    let now = clock::now();
    let total = |value| Some(Total { base: 1, value });
    let told = (0..4).flat_map(|class| {
        let stream = StreamKey::parse(&format!("live/c{class}")).unwrap();
        let server = ServerView {
            publishing: Some(true),
            ingest_protocol: Some(Protocol::Rtmp),
            ingest_bytes: total(second * 200_000),
            ingest_frames: total(second * 25),
            declared_fps: Some(25.0),
            viewers: Some(vec![(Protocol::Hls, 40)]),
            ..ServerView::default()
        };
        let players = PlayerView {
            protocol: Some(Protocol::Hls),
            viewers: 40,
            exposure: Duration::from_secs(40),
            stalled: Duration::from_millis(400) * stalled,
            stall_starts: stalled,
            ..PlayerView::default()
        };
        let facts = [("srs", Fact::Server(Box::new(server))), ("players", Fact::Players(Box::new(players)))];
        facts.map(|(source, fact)| Observation { source: source.into(), stream: stream.clone(), at: now, fact })
    });
    told.collect()
}

/// The rules with a real path beside them; how busy the machine of the test is stays out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classes_that_stall_behind_a_bad_path_have_it_as_their_cause() {
    let folder = nodes();
    let origin = Node::origin(folder.path());
    let relay = UdpRelay::start(origin.address(), 5).await;
    let edge = Node::start(&edge(folder.path(), relay.address));
    let mut pipe = Pipeline::new("edge", Objectives::default(), SessionTimeouts::default(), 100);
    let (mut ticks, mut degraded, mut causes) = (0_u64, false, BTreeMap::new());
    while causes.values().filter(|cause| **cause == Cause::EdgePath).count() < 4 {
        if ticks == 60 {
            assert!(!degraded, "healthy so far");
            relay.set(Impairment::default(), lossy(0.3, Duration::from_millis(10)));
        }
        if ticks.is_multiple_of(4) {
            for told in tell_classes(ticks / 4, if degraded { 12 } else { 0 }) {
                pipe.observe(told);
            }
        }
        let now = clock::now();
        let around = Environment { paths: edge.table.reports(now), ..Environment::default() };
        for notice in pipe.tick(now, &around).notices {
            println!("{ticks}: {} {}", notice.summary(), notice.description());
            match (notice.alert, &notice.subject) {
                (Alert::LivePathDegraded, _) => degraded = true,
                (Alert::LiveStutterHigh, Subject::Session(session)) => {
                    assert!(
                        notice.cause != Cause::EdgePath
                            || notice.why[0].starts_with("the path to origin-1 is degraded: ")
                    );
                    causes.insert(session.id.clone(), notice.cause);
                }
                _ => {}
            }
        }
        ticks += 1;
        assert!(ticks < 480, "after two minutes: {degraded} {causes:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
