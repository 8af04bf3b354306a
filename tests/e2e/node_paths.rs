//! Paths between nodes, with real QUIC over a relay that loses and delays packets: the figures are those of the relay,
//! unknown nodes are refused with the reason, and a degraded path raises an alert, is the cause of its classes' alerts,
//! and resolves when it recovers.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

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
use liveqos_testkit::daemon::{Daemon, value};
use liveqos_testkit::seed::seed;
use liveqos_testkit::wait::{PATIENCE, until, until_blocking};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::path_node::{Node, edge, lossy, nodes, tls};
use super::udp_relay::UdpRelay;

/// Echoes in a packet of this length: each takes 82 to 84 bytes, everything else less than half of that. A busy node
/// sends several in one packet.
const fn echoes_in(length: usize) -> u64 {
    ((length - 20) / (ECHO_BYTES + 1)) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_and_round_trip_are_those_of_the_relay() {
    let (folder, delay) = (nodes(), Duration::from_millis(20));
    let origin = Node::origin(folder.path());
    let relay = UdpRelay::start(origin.address(), 7).await;
    relay.set(lossy(0.0, delay), lossy(0.0, delay));
    let edge = Node::start(&edge(folder.path(), relay.address));
    let healthy = edge.until("a healthy path", |path| path.sent >= 100).await;
    assert_eq!((healthy.lost_out, healthy.lost_back), (0, 0), "{healthy:?}");
    assert_eq!(relay.counts().map(|(_, lost)| lost.len()), [0, 0]);
    let least = healthy.figures.least_rtt_seconds.unwrap();
    assert!((0.04..0.08).contains(&least), "20 ms in each direction: {least} s");

    relay.set(lossy(0.05, delay), lossy(0.15, delay));
    edge.until("many pings", |path| path.sent >= healthy.sent + 600).await;
    relay.set(lossy(0.0, delay), lossy(0.0, delay));
    let before = edge.path();
    let measured = edge.until("the fate of all pings", |path| path.sent >= before.sent + 60).await;
    let [(out_seen, out_lost), (_, back_lost)] = relay.counts();
    let out_lost = out_lost.len() as u64;
    println!("out: {out_lost} of {out_seen} packets lost, measured {} of {} pings", measured.lost_out, measured.sent);
    // Some packets carry no ping: handshake and acknowledgements.
    let out_other = out_seen - measured.sent;
    assert!(measured.lost_out <= out_lost && measured.lost_out + out_other >= out_lost, "{measured:?}");
    let echoes: u64 = back_lost.iter().map(|length| echoes_in(*length)).sum();
    println!(
        "back: {} packets with {echoes} echoes lost, measured {} of {}",
        back_lost.len(),
        measured.lost_back,
        measured.arrived
    );
    assert_eq!(measured.lost_back, echoes);
    let expected = |of: u64, ratio: f64| (of as f64 * ratio, 5.0 * (of as f64 * ratio).sqrt());
    for (lost, of, ratio) in [
        (measured.lost_out, measured.sent - healthy.sent, 0.05),
        (measured.lost_back, measured.arrived - healthy.arrived, 0.15),
    ] {
        let (mean, slack) = expected(of, ratio);
        assert!((lost as f64 - mean).abs() < slack + 0.1 * mean, "{lost} lost of {of} at {ratio}");
    }
    let figures = measured.figures;
    assert!(figures.back_loss_ratio > figures.out_loss_ratio && figures.loss_ratio() == figures.back_loss_ratio);
    assert!(edge.meters.shed.with_label_values(&["path_unrecognized"]).get() < 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_is_unknown_while_the_other_node_is_gone() {
    let folder = nodes();
    let mut origin = Node::origin(folder.path());
    let relay = UdpRelay::start(origin.address(), 1).await;
    let edge = Node::start(&edge(folder.path(), relay.address));
    edge.until("a path", |path| path.figures.rtt_seconds.is_some()).await;
    // The relay drops everything: to the edge, the path is cut.
    relay.set(lossy(1.0, Duration::ZERO), lossy(1.0, Duration::ZERO));
    let cut = edge.until("silence", |path| path.figures == PathFigures::default()).await;
    assert_eq!((cut.lost_out, cut.lost_back), (0, 0), "an unreachable node is not loss: {cut:?}");
    assert!(edge.table.reports(clock::now()).iter().all(|report| report.silent.is_some() && report.out.is_none()));
    relay.set(Impairment::default(), Impairment::default());
    let back = edge.until("the path again", |path| path.figures.rtt_seconds.is_some()).await;
    println!("lost in the gap: {} out, {} back", back.lost_out, back.lost_back);
    // The origin stops in good order: it closes the connection, so that the path is not reported as cut.
    origin.tasks.shutdown().await;
    edge.until("the end", |path| path.figures == PathFigures::default()).await;
    drop(edge.table.reports(clock::now()));
    assert!(edge.table.reports(clock::now()).iter().all(|report| report.silent.is_none() && report.rtt.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_nodes_are_refused_with_the_reason() {
    let (folder, other) = (nodes(), nodes());
    let origin = Node::origin(folder.path());
    let address = origin.address().to_string();
    let mixed = NodeTlsSettings { ca: tls(folder.path(), "edge").ca, ..tls(other.path(), "edge") };
    let misnamed = PeerSettings { server_name: "origin-2.example.com".to_owned(), ..PeerSettings::at(&address) };
    for (peer, tls, mark) in [
        (PeerSettings::at(&address), tls(other.path(), "edge"), "its certificate is not trusted"),
        (PeerSettings::at(&address), mixed, "it does not trust this node's certificate"),
        (misnamed, tls(folder.path(), "edge"), "its certificate is not trusted"),
    ] {
        let error = try_once(&peer, &Credentials::read(&tls).unwrap()).await.unwrap_err();
        assert!(error.reason == "certificate" && error.message.contains(mark), "{error:?}");
    }
    let good = Credentials::read(&tls(folder.path(), "edge")).unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = PeerSettings::at(&silent.local_addr().unwrap().to_string());
    assert_eq!(try_once(&nobody, &good).await.unwrap_err().reason, "timeout");
    assert_eq!(try_once(&PeerSettings::at("nobody.invalid:9481"), &good).await.unwrap_err().reason, "resolve");
    assert!(try_once(&PeerSettings::at(&address), &good).await.is_ok(), "a known node connects");
    assert!(origin.meters.shed.with_label_values(&["path_refused"]).get() >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_are_used_by_the_next_connection() {
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
    edge.until("the open connection to go on", |path| path.arrived >= before.arrived + 50).await;
    std::fs::write(folder.path().join("origin.key"), "nonsense").unwrap();
    let error = origin.peers.read().err().unwrap().to_string();
    assert!(error.contains("origin.key") && error.contains("PEM"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_datagrams_are_counted_and_other_nodes_are_served() {
    let folder = nodes();
    let origin = Node::origin(folder.path());
    let edge = Node::start(&edge(folder.path(), origin.address()));
    let Credentials { client, .. } = Credentials::read(&tls(folder.path(), "edge")).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let hostile = endpoint.connect_with(client, origin.address(), "localhost").unwrap().await.unwrap();
    let mut random = fastrand::Rng::with_seed(seed("hostile_datagrams"));
    let mut bytes = move |length: usize| -> Vec<u8> { std::iter::repeat_with(|| random.u8(..)).take(length).collect() };
    for number in 0..4_000_u64 {
        let mut datagram = bytes(8 + number as usize % 40 * 8);
        datagram[0] = (number % 4) as u8;
        hostile.send_datagram(datagram.into()).unwrap();
        hostile.send_datagram(liveqos_core::node::ping::ping(u64::MAX - number).to_vec().into()).unwrap();
        if number % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let count = |reason: &str| origin.meters.shed.with_label_values(&[reason]).get();
    for reason in ["path_unrecognized", "path_echo_rate"] {
        until(reason, PATIENCE, async || (count(reason) >= 1.0).then_some(())).await;
    }
    // Random bytes at the socket itself.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..2_000_u64 {
        let packet = bytes(8 + number as usize % 160 * 8);
        socket.send_to(&packet, origin.address()).unwrap();
    }
    let before = edge.path();
    edge.until("echoes to other nodes", |path| path.arrived >= before.arrived + 100).await;
}

fn configuration(folder: &Path, node: &str, rest: &str) -> String {
    let NodeTlsSettings { cert, key, ca } = tls(folder, node);
    let [cert, key, ca] = [cert, key, ca].map(|file| file.display().to_string());
    format!(
        "[state]\ndir = \"\"\n[paths]\ninterval = \"20ms\"\n{rest}\n[paths.tls]\ncert = {cert:?}\nkey = {key:?}\nca = {ca:?}\n"
    )
}

fn alert(daemon: &Daemon, name: &str) -> Option<Value> {
    let alerts = daemon.ask_json("/api/v1/alerts");
    alerts["alerts"].as_array()?.iter().find(|alert| alert["alertname"] == name).cloned()
}

fn metric(daemon: &Daemon, name: &str) -> Option<f64> {
    let page = daemon.ask("GET", "/metrics", "").1;
    value(&page, name, &["origin-1"])
}

/// The whole program: a path degrades, raises an alert with its figures, recovers; then the other node is killed.
#[test]
fn a_degraded_path_raises_an_alert_and_resolves() {
    let folder = nodes();
    let origin_config = configuration(folder.path(), "origin", "listen = \"127.0.0.1:0\"");
    let origin = Daemon::start(&origin_config);
    let runtime = Runtime::new().unwrap();
    let relay = runtime.block_on(UdpRelay::start(origin.logged_address("paths"), 3));
    let peers = format!("peers = [{{ name = \"origin-1\", address = \"{}\" }}]", relay.address);
    let edge = Daemon::start(&configuration(folder.path(), "edge", &peers));
    let path = |edge: &Daemon| edge.ask_json("/api/v1/sources")["paths"][0].clone();
    until_blocking("six hundred pings", || (path(&edge)["sent"].as_u64()? >= 600).then_some(()));
    assert!(alert(&edge, "LivePathDegraded").is_none());
    assert_eq!(metric(&edge, "liveqos_path_loss_ratio"), Some(0.0));
    assert!(metric(&edge, "liveqos_path_rtt_seconds").unwrap() > 0.0);

    relay.set(lossy(0.2, Duration::ZERO), Impairment::default());
    let raised = until_blocking("the alert", || alert(&edge, "LivePathDegraded"));
    assert_eq!((&raised["peer"], &raised["cause"]), (&"origin-1".into(), &"edge_path".into()), "{raised}");
    assert_eq!(raised["evidence"]["size_unit"], "pings sent there", "{raised}");
    assert!(raised["evidence"]["value"].as_f64().unwrap() > 0.005, "{raised}");
    assert!(metric(&edge, "liveqos_path_loss_ratio").unwrap() > 0.005);
    relay.set(Impairment::default(), Impairment::default());
    until_blocking("its end", || alert(&edge, "LivePathDegraded").is_none().then_some(()));

    drop(origin);
    let silent = until_blocking("the alert of the silent node", || alert(&edge, "LiveSourceDown"));
    assert_eq!(silent["source"], "origin-1", "{silent}");
    assert_eq!(metric(&edge, "liveqos_path_loss_ratio"), None, "unknown, not healthy");
    assert_eq!(metric(&edge, "liveqos_path_rtt_seconds"), None);
    assert_eq!(metric(&edge, "liveqos_probe_up"), Some(0.0));
    assert!(alert(&edge, "LivePathDegraded").is_none(), "nor proven bad");
    assert!(edge.shed("path_unrecognized") < 1.0);
    let origin = Daemon::start(&origin_config);
    relay.redirect(origin.logged_address("paths"));
    until_blocking("the path again", || metric(&edge, "liveqos_path_rtt_seconds"));
    until_blocking("its end", || alert(&edge, "LiveSourceDown").is_none().then_some(()));
}

/// Reports of a media server and of players about four classes for this second; `stalled` of a hundred seconds of
/// watching were stalls.
fn class_reports(second: u64, stalled: u32) -> Vec<Observation> {
    let now = clock::now();
    let total = |value| Some(Total { base: 1, value });
    let reports = (0..4).flat_map(|class| {
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
    reports.collect()
}

/// Core with a real path beside it, but without the load of the machine that the test runs on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_degraded_path_is_the_cause_of_stalls_behind_it() {
    let folder = nodes();
    let origin = Node::origin(folder.path());
    let relay = UdpRelay::start(origin.address(), 5).await;
    let edge = Node::start(&edge(folder.path(), relay.address));
    let mut pipe = Pipeline::new("edge", Objectives::default(), SessionTimeouts::default(), 100);
    let (mut ticks, mut degraded, mut causes) = (0_u64, false, BTreeMap::new());
    while causes.values().filter(|cause| **cause == Cause::EdgePath).count() < 4 {
        if ticks == 60 {
            assert!(!degraded, "healthy at first");
            relay.set(Impairment::default(), lossy(0.3, Duration::from_millis(10)));
        }
        if ticks.is_multiple_of(4) {
            for report in class_reports(ticks / 4, if degraded { 12 } else { 0 }) {
                pipe.observe(report);
            }
        }
        let now = clock::now();
        let environment = Environment { paths: edge.table.reports(now), ..Environment::default() };
        for notice in pipe.tick(now, &environment).notices {
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
