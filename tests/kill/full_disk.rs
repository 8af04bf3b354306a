//! A disk that is really full: a small file system of its own, so this test needs root; without it, it prints that
//! and is skipped.

use std::path::Path;
use std::time::Duration;

use liveqos_testkit::collector::Collector;
use liveqos_testkit::daemon::{Daemon, value};
use liveqos_testkit::program::{command, run};
use liveqos_testkit::stat_server::StatServer;
use liveqos_testkit::wait::{alone, until};

use super::kills::seldom;
use super::seen::Seen;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_nothing_but_the_writing_of_state() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = Mounted::new(&disk) else {
        return eprintln!("SKIPPED: mounting a file system of 2 MB needs root");
    };
    let (collector, classes) = (Collector::grpc(), StatServer::many(20).await);
    let config = format!(
        "[kernel]\ntcp_info = false\n[state]\ndir = \"{}\"\n[otlp]\nendpoint = \"{}\"\n\
         [[sources]]\nkind = \"nginx-rtmp\"\nname = \"many\"\nurl = \"{}\"\ninterval = \"1s\"\n",
        disk.display(),
        collector.url(),
        classes.url
    );
    let mut daemon = Daemon::start_in(folder.path(), &config).await;
    let kept = async |daemon: &Daemon| Some(value(&daemon.metrics().await, "liveqos_state_kept", &[])? > 0.0);
    until("state on disk", WITHIN, async || kept(&daemon).await?.then_some(())).await;

    let filler = disk.join("filler");
    fill(&filler);
    until("the report of it", WITHIN, async || (!kept(&daemon).await?).then_some(())).await;
    let ready = daemon.try_text("/readyz").await.unwrap();
    assert!(ready.starts_with("ok\n") && ready.contains("No space left on device"), "{ready}");
    let before = samples(&collector);
    until("samples all the same", WITHIN, async || {
        seldom().await;
        (samples(&collector) >= before + 40).then_some(())
    })
    .await;

    std::fs::remove_file(&filler).unwrap();
    until("state on disk again", WITHIN, async || kept(&daemon).await?.then_some(())).await;
    daemon.program.signal("KILL");
    daemon.program.ended(WITHIN).await;
    daemon = Daemon::start_in(folder.path(), &config).await;
    // Heard of again, so that their end is seen and need not be concluded.
    let before = samples(&collector);
    until("samples after the restart", WITHIN, async || {
        seldom().await;
        (samples(&collector) >= before + 40).then_some(())
    })
    .await;
    classes.end();
    until("all ends", WITHIN, async || {
        seldom().await;
        (Seen::of(&collector).count("live.teaching.complete") == 20).then_some(())
    })
    .await;
    let log = daemon.program.log();
    assert!(daemon.program.stop().await.success());
    let seen = Seen::of(&collector);
    eprintln!("{} samples, every trace whole, after a full disk and a kill", seen.all_whole());
    assert_eq!(log.matches("in memory only until the disk works again").count(), 1, "logged once: {log}");
}

/// Writes until there is no room at all.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [4_096, 512, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

pub(crate) fn samples(collector: &Collector) -> usize {
    Seen::of(collector).samples.values().map(std::collections::BTreeMap::len).sum()
}

/// A file system of 2 MB in memory, gone with the guard.
pub(crate) struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// Mounted at `path`, where this process may.
    pub(crate) fn new(path: &'a Path) -> Option<Self> {
        let (code, _) = run(command("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(path));
        (code == Some(0)).then_some(Self(path))
    }

    /// From now on it is read only (`ro`), or is not (`rw`).
    pub(crate) fn remount(&self, mode: &str) {
        let (code, output) = run(command("mount").args(["-o", &format!("remount,{mode}")]).arg(self.0));
        assert_eq!(code, Some(0), "{output}");
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        run(command("umount").arg("--lazy").arg(self.0));
    }
}

const WITHIN: Duration = Duration::from_mins(1);
