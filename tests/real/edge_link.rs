//! The same edge behind a link that loses packets and queues them, in a network namespace of its own: the whole test
//! starts itself again in there. Where the machine allows no namespace or has no `nft`, it prints that and tests
//! nothing.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use liveqos_testkit::daemon::{Daemon, value};
use liveqos_testkit::program::{command, run};
use liveqos_testkit::wait;
use tokio::task::JoinSet;

use super::edge::{Edge, leg, logged_rtt, watch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_and_round_trip_of_a_class_are_those_of_its_link() {
    if std::env::var_os(INSIDE).is_some() {
        return inside().await;
    }
    let _alone = wait::alone().await;
    let (allowed, output) = run(command("unshare").args(["--net", "sh", "-c", "nft --version && tc -V"]));
    if allowed != Some(0) {
        return eprintln!("SKIPPED: no network namespace with nft and tc here: {output}");
    }
    let own = std::env::current_exe().unwrap();
    let mut again = command("unshare");
    again.arg("--net").arg(own).args(["--exact", TEST, "--nocapture"]).env(INSIDE, "1");
    let (code, output) = run(&mut again);
    eprintln!("{output}");
    assert_eq!(code, Some(0));
    assert!(output.contains("1 passed"), "it ran in there");
}

async fn inside() {
    for line in [
        "ip link set lo up mtu 1500",
        // Each packet is a segment, so that packets dropped and segments lost are the same count.
        "ip link set lo gso_max_segs 1",
        "tc qdisc replace dev lo root tbf rate 40mbit burst 32k latency 2s",
    ] {
        let (code, output) = run(command("sh").args(["-c", line]));
        assert_eq!(code, Some(0), "{line}: {output}");
    }
    let edge = Edge::start().await;
    let daemon = edge.daemon().await;
    let mut viewers = JoinSet::new();
    for sid in 0..8 {
        viewers.spawn(watch(edge.port, sid, None, Arc::default()));
    }
    wait::until("the class", PATIENCE, async || leg(&daemon).await?["rtt_seconds"]["p50"].as_f64()).await;
    let [_, lost_before] = segments(&daemon, edge.port).await;
    lose(edge.port);
    wait::until("losses", PATIENCE, async || {
        assert!(viewers.try_join_next().is_none(), "a viewer ended");
        Some(()).filter(|()| dropped() >= LOSSES)
    })
    .await;
    let figures = wait::until("a window's loss", PATIENCE, async || {
        leg(&daemon).await.filter(|leg| leg["packet_loss_ratio"].as_f64().is_some_and(|ratio| ratio > 0.01))
    })
    .await;
    heal();
    let dropped = dropped();
    // A loss is known when it is repaired and the sockets were polled again.
    let mut lost = segments(&daemon, edge.port).await[1];
    wait::until("the last loss", PATIENCE, async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = std::mem::replace(&mut lost, segments(&daemon, edge.port).await[1]);
        (lost - before < 1.0).then_some(())
    })
    .await;
    let (sent, lost) = (segments(&daemon, edge.port).await[0], lost - lost_before);
    let ratio = figures["packet_loss_ratio"].as_f64().unwrap();
    let (joined, logged) = (figures["rtt_seconds"]["p50"].as_f64().unwrap(), logged_rtt(edge.folder.path()));
    eprintln!("{figures}\nthe link dropped {dropped}, the kernel counts {lost} lost of {sent}; class {ratio:.4}");
    let [least, median, most] = logged;
    eprintln!("round trip: joined sockets {joined:.4} s, lines of the log {median:.4} s, {least:.4} to {most:.4}");
    assert!((lost - dropped).abs() <= dropped * 0.1, "{lost} lost beside {dropped} dropped");
    assert!(ratio < 0.06, "{ratio} beside 0.03");
    // The queue comes and goes with each segment: polls and ends of responses see other instants of the same
    // connections.
    assert!((least * 0.5..=most).contains(&joined), "{joined} beside {logged:?}");
    viewers.abort_all();
}

/// Drops three of a hundred segments on their way to the viewers.
fn lose(port: u16) {
    let rules = format!(
        "table inet link {{\ncounter dropped {{}}\nchain way {{\ntype filter hook input priority 0\n\
         tcp sport {port} meta length > 200 numgen random mod 100 < 3 counter name dropped drop\n}}\n}}\n"
    );
    let mut nft = command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

/// Drops no more; what was counted stays.
fn heal() {
    let (code, output) = run(command("nft").args(["flush", "chain", "inet", "link", "way"]));
    assert_eq!(code, Some(0), "{output}");
}

/// Packets that the link dropped so far.
fn dropped() -> f64 {
    let (_, output) = run(command("nft").args(["list", "counter", "inet", "link", "dropped"]));
    output.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).unwrap()
}

/// Segments sent and lost on the listener, by the daemon.
async fn segments(daemon: &Daemon, port: u16) -> [f64; 2] {
    let (page, port) = (daemon.metrics().await, format!("port=\"{port}\""));
    ["sent", "lost"].map(|outcome| {
        let labels = [port.as_str(), &format!("outcome=\"{outcome}\"")];
        value(&page, "liveqos_listener_segments_total", &labels).unwrap()
    })
}

const INSIDE: &str = "EDGE_LINK_IN_NAMESPACE";
const TEST: &str = "edge_link::loss_and_round_trip_of_a_class_are_those_of_its_link";
/// Enough that the counts can be held against each other.
const LOSSES: f64 = 150.0;
const PATIENCE: Duration = Duration::from_mins(1);
