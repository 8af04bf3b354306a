//! The daemon hanging, then killed, in the middle of a class: nginx's hooks get no response, and the class goes on.

use std::time::Duration;

use liveqos_testkit::daemon::Launch;
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::Program;
use liveqos_testkit::wait::{alone, until};

use super::ffmpeg::{Publisher, player};
use super::nginx::Nginx;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_daemon_drops_no_class() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let port = ReservedPort::new();
    let nginx = Nginx::start(folder.path(), port.number()).await;
    let config = format!(
        "[[sources]]\nkind = \"nginx-rtmp\"\nurl = \"{}\"\ninterval = \"1s\"\nmedia_ports = [{}]\n",
        nginx.stat, nginx.media
    );
    let mut daemon = Launch::new(&config).folder(folder.path()).listen(port.address()).ready().await;
    let mut publisher = Publisher::start(folder.path(), &nginx.url("class102?session_id=s-102&course_id=c-9"));
    until("the class", Duration::from_secs(15), async || daemon.session("s-102").await).await;
    let mut viewers = ["player-1", "player-2"].map(|name| player(folder.path(), name, &nginx.url("class102")));
    let before = until("two viewers", Duration::from_secs(20), async || {
        daemon.session("s-102").await.filter(|session| session["viewers"] == 2)
    });
    let before = before.await;
    let connections = nginx.clients().await;
    assert_eq!(connections.len(), 3);

    // It hangs: connections are taken, no answer comes.
    daemon.program.signal("STOP");
    the_class_flows(&nginx, &connections, 3).await;
    // It is gone: connections are refused.
    daemon.program.signal("KILL");
    let status = daemon.program.ended(Duration::from_secs(5)).await;
    assert!(!status.success());
    the_class_flows(&nginx, &connections, 5).await;
    assert!(publisher.program.is_running() && viewers.iter_mut().all(Program::is_running));
    let log = nginx.program.log();
    let (silent, refused) = (log.matches("upstream timed out").count(), log.matches("Connection refused").count());
    assert!(silent > 0 && refused > 0, "the hooks did not miss the daemon");

    let daemon = Launch::new(&config).folder(folder.path()).listen(port.address()).ready().await;
    let after = until("the class again", Duration::from_secs(20), async || {
        daemon.session("s-102").await.filter(|session| session["viewers"] == 2)
    });
    let after = after.await;
    assert_eq!((&after["trace_id"], &after["course_id"]), (&before["trace_id"], &before["course_id"]));
    eprintln!(
        "{silent} hooks had no answer, {refused} were refused; the class was resumed: opened {} before, {} after",
        before["opened_at"], after["opened_at"]
    );
    let apart = (after["opened_at"].as_f64().unwrap() - before["opened_at"].as_f64().unwrap()).abs();
    assert!(apart < 1.0, "a class is as old as its publisher, not as the daemon: {apart} s");
    assert_eq!(nginx.clients().await, connections);
}

/// Media goes on for this many periods of the hook, and no connection is opened anew.
async fn the_class_flows(nginx: &Nginx, connections: &[u64], periods: u32) {
    let (mut received, mut sent) = (number(nginx, "bytes_in").await, number(nginx, "bytes_out").await);
    for _ in 0..periods {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = (number(nginx, "bytes_in").await, number(nginx, "bytes_out").await);
        assert!(now.0 > received + ENOUGH && now.1 > sent + 2 * ENOUGH, "{now:?} after {received} and {sent}");
        (received, sent) = now;
        assert_eq!(nginx.clients().await, connections, "no connection is new");
    }
}

async fn number(nginx: &Nginx, element: &str) -> u64 {
    let count = nginx.number("class102", element).await;
    count.unwrap_or_else(|| panic!("nginx no longer has the class"))
}

/// Bytes of 2 s that are surely more than none: a quarter of the bitrate.
const ENOUGH: u64 = 100_000;
