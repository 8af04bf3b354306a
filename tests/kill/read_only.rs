//! A state folder that cannot be used when the daemon starts: it is taken up when it can, without a restart.

use std::time::Duration;

use liveqos_testkit::collector::Collector;
use liveqos_testkit::daemon::{Daemon, value};
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::stat_server::StatServer;
use liveqos_testkit::wait::{alone, until};

use super::full_disk::{Mounted, samples};
use super::kills::seldom;
use super::seen::Seen;

async fn kept(daemon: &Daemon) -> Option<bool> {
    Some(value(&daemon.metrics().await, "liveqos_state_kept", &[])? > 0.0)
}

fn config(dir: &std::path::Path, collector: &Collector, classes: &StatServer) -> String {
    format!(
        "[kernel]\ntcp_info = false\n[state]\ndir = \"{}\"\n[otlp]\nendpoint = \"{}\"\n\
         [[sources]]\nkind = \"nginx-rtmp\"\nname = \"many\"\nurl = \"{}\"\ninterval = \"1s\"\n",
        dir.display(),
        collector.url(),
        classes.url
    )
}

/// A file system of its own, so it needs root; without it, it prints that and is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_read_only_at_the_start_is_read_and_taken_up_later() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(mounted) = Mounted::new(&disk) else {
        return eprintln!("SKIPPED: mounting a file system of 2 MB needs root");
    };
    let (collector, classes) = (Collector::grpc(), StatServer::many(CLASSES).await);
    let config = config(&disk.join("state"), &collector, &classes);
    let mut daemon = Daemon::start_in(folder.path(), &config).await;
    let more = async |count: usize| {
        let before = samples(&collector);
        until("more samples", WITHIN, async || {
            seldom().await;
            (samples(&collector) >= before + count).then_some(())
        })
        .await;
    };
    more(2 * CLASSES).await;
    daemon.program.signal("KILL");
    daemon.program.ended(WITHIN).await;
    mounted.remount("ro");
    daemon = Daemon::start_in(folder.path(), &config).await;
    assert_eq!(kept(&daemon).await, Some(false));
    let ready = daemon.try_text("/readyz").await.unwrap();
    assert!(ready.starts_with("ok\n") && ready.contains("Read-only file system"), "{ready}");
    // The same classes in the same traces, though nothing can be written.
    more(2 * CLASSES).await;
    assert_eq!(Seen::of(&collector).count("live.teaching.start"), CLASSES);
    mounted.remount("rw");
    until("state on disk", WITHIN, async || kept(&daemon).await?.then_some(())).await;
    daemon.program.signal("KILL");
    daemon.program.ended(WITHIN).await;
    daemon = Daemon::start_in(folder.path(), &config).await;
    assert_eq!(kept(&daemon).await, Some(true));
    more(2 * CLASSES).await;
    classes.end();
    until("all ends", WITHIN, async || {
        seldom().await;
        (Seen::of(&collector).count("live.teaching.complete") == CLASSES).then_some(())
    })
    .await;
    let log = daemon.program.log();
    assert!(daemon.program.stop().await.success());
    let seen = Seen::of(&collector);
    assert!(seen.most_missing() <= 2, "at most a sample a kill");
    eprintln!("{} samples, every trace whole, after a start on a read-only disk", seen.all_whole());
    assert_eq!(log.matches("the state folder cannot be used").count(), 1, "logged once: {log}");
    assert_eq!(log.matches("state and spool are on disk again").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_comes_late_is_taken_up_with_what_is_in_it() {
    // It mostly waits, so the machine may do other things.
    let folder = tempfile::tempdir().unwrap();
    let (there, away) = (folder.path().join("var"), folder.path().join("away"));
    std::fs::create_dir(&there).unwrap();
    let (collector, old) = (Collector::grpc(), StatServer::many(CLASSES).await);
    // The collector is away: all records wait in the folder.
    let port = ReservedPort::new();
    let nowhere = format!("http://{}", port.address());
    let before = config(&there.join("state"), &collector, &old).replace(&collector.url(), &nowhere);
    let mut daemon = Daemon::start_in(folder.path(), &before).await;
    let waits = async |daemon: &Daemon| value(&daemon.metrics().await, "liveqos_spool_bytes", &["signal=\"logs\""]);
    let record = 100.0;
    until("records", WITHIN, async || (waits(&daemon).await? > record * 2.0 * CLASSES as f64).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.program.signal("KILL");
    daemon.program.ended(WITHIN).await;
    old.end();
    std::fs::rename(&there, &away).unwrap();
    // Something is in the way, for root too.
    std::fs::write(&there, "").unwrap();

    let none = StatServer::many(0).await;
    daemon = Daemon::start_in(folder.path(), &config(&there.join("state"), &collector, &none)).await;
    assert_eq!(kept(&daemon).await, Some(false));
    std::fs::remove_file(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    until("state on disk", WITHIN, async || kept(&daemon).await?.then_some(())).await;
    // The classes of before ended unseen, and what waited of them is sent.
    until("all ends", WITHIN, async || {
        seldom().await;
        (Seen::of(&collector).count("live.teaching.complete") == CLASSES).then_some(())
    })
    .await;
    assert!(daemon.program.stop().await.success());
    let seen = Seen::of(&collector);
    eprintln!("{} samples of {CLASSES} classes found late, every trace whole", seen.all_whole());
    assert_eq!(seen.traces.len(), CLASSES);
}

const CLASSES: usize = 10;
const WITHIN: Duration = Duration::from_mins(2);
