//! kill -9 at random instants, and orderly ends now and then: what the collector has in the end is what it would have
//! had without. Beside it, killed at the same instants and refused by its collector in the same lives, the same load on
//! the OpenTelemetry SDK.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use liveqos::otlp::Signal;
use liveqos_testkit::collector::{Collector, Reply};
use liveqos_testkit::daemon::{Launch, liveqos};
use liveqos_testkit::program::Program;
use liveqos_testkit::seed::random;
use liveqos_testkit::stat_server::StatServer;
use liveqos_testkit::wait::{alone, until};
use tonic::Code;

use super::sdk::{self, Sdk};
use super::seen::Seen;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// kill -9.
    Kill,
    /// SIGTERM, and time to follow it.
    Stop,
    /// As a package manager does it: another program in place of the one that runs, then SIGTERM.
    Upgrade,
    /// SIGTERM, and kill -9 soon after, as a service manager does that has waited long enough.
    Hurried,
}

/// Lives in their order: four with kill -9, then one with an end of another kind.
fn ends(kills: usize) -> impl Iterator<Item = End> {
    let others = [End::Stop, End::Upgrade, End::Hurried];
    (0..kills).flat_map(move |kill| {
        let other = (kill % 4 == 3).then(|| others[kill / 4 % others.len()]);
        [End::Kill].into_iter().chain(other)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_every_sample_arrives_once_and_every_trace_is_whole() {
    let _machine = alone().await;
    let kills: usize = std::env::var("KILLS").map_or(20, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let installed = Installed::new(folder.path());
    let (collector, classes) = (Collector::grpc(), StatServer::many(CLASSES).await);
    let (its_collector, its_folder) = (Collector::grpc(), folder.path().join("sdk"));
    std::fs::create_dir(&its_folder).unwrap();
    let sdk = Sdk::new(its_folder, &its_collector, CLASSES);
    let config = format!(
        "[kernel]\ntcp_info = false\n[state]\ndir = \"{}\"\n[otlp]\nendpoint = \"{}\"\n[otlp.metrics]\nenabled = false\n\
         [[sources]]\nkind = \"nginx-rtmp\"\nname = \"many\"\nurl = \"{}\"\ninterval = \"1s\"\n",
        folder.path().join("state").display(),
        collector.url(),
        classes.url
    );
    let start = async || Launch::new(&config).folder(folder.path()).program(&installed.path).ready().await;
    let mut daemon = start().await;
    until("all classes", WITHIN, async || (daemon.live().await? == CLASSES).then_some(())).await;
    let mut its_process = sdk.start();

    let (mut down, mut lives, mut random) = (Duration::ZERO, 0, random("killed_under_load"));
    for end in ends(kills) {
        let chance = random.u64(..);
        lives += 1;
        trouble(&[&collector, &its_collector], chance);
        tokio::time::sleep(Duration::from_millis(chance % LONGEST_LIFE_MILLIS)).await;
        let ended = Instant::now();
        if end == End::Upgrade {
            installed.upgrade();
        }
        finish(end, chance, [&mut daemon.program, &mut its_process]).await;
        its_process = sdk.start();
        daemon = start().await;
        assert_eq!(daemon.live().await, Some(CLASSES), "they are there again at once");
        down = down.max(ended.elapsed());
    }
    for collector in [&collector, &its_collector] {
        collector.always(None);
    }
    classes.end();
    assert!(its_process.stop().await.success());
    until("the end of all classes", WITHIN, async || (daemon.live().await? == 0).then_some(())).await;
    until("all ends at the collector", WITHIN, async || {
        seldom().await;
        (Seen::of(&collector).count("live.teaching.complete") == CLASSES).then_some(())
    })
    .await;
    assert!(daemon.program.stop().await.success());
    eprintln!("{kills} kills and {} other ends; longest down {down:?}", lives - kills);
    check_liveqos(&collector, lives);
    check_sdk(&sdk, &its_collector);
}

/// What liveqos promises: every trace whole, each sample once, and whatever was acknowledged is there: what was on
/// disk, which is all that it ever sent, taken or refused.
fn check_liveqos(collector: &Collector, lives: usize) {
    let seen = Seen::of(collector);
    let samples = seen.all_whole();
    let missing = seen.most_missing();
    let refused = seen.refused(collector);
    eprintln!(
        "{CLASSES} classes: {samples} samples and {} spans, each once in effect; {} came again byte for byte; {refused} were refused and came \
         later; of one class at most {missing} samples were never cut or lost, one a life allowed",
        seen.traces.values().map(std::collections::BTreeMap::len).sum::<usize>(),
        seen.duplicates
    );
    assert_eq!(seen.traces.len(), CLASSES);
    assert!(missing <= lives, "more than one sample a life");
    assert!(refused > 0 || lives < 10, "the collector refused some");
}

/// What the SDK's exporter made of the same, for comparison.
fn check_sdk(sdk: &Sdk, collector: &Collector) {
    let ((arrived, came), ended) = (sdk::arrived(collector), sdk.ended());
    eprintln!(
        "the SDK's batch exporter beside it: {arrived} of {ended} spans that it had ended arrived ({:.1} %), {} came again",
        arrived as f64 / ended as f64 * 100.0,
        came - arrived
    );
    assert!(ended > 0 && arrived > 0, "it took part");
}

/// What the collectors do in the next life: refuse once, refuse until a later life, or nothing.
fn trouble(collectors: &[&Collector], chance: u64) {
    let refused = || Reply::Code(Code::Unavailable, Vec::new());
    for collector in collectors {
        collector.always(chance.is_multiple_of(5).then(refused));
        if chance.is_multiple_of(3) {
            // One for each life or less, so that none is left for the end: refusals in a row are waited for longer and
            // longer.
            collector.script(Signal::Logs.as_str(), [refused()]);
            collector.script(Signal::Traces.as_str(), [refused()]);
        }
    }
}

/// Ends these programs at the same instant.
async fn finish(end: End, chance: u64, mut programs: [&mut Program; 2]) {
    let first = if end == End::Kill { "KILL" } else { "TERM" };
    for program in &programs {
        program.signal(first);
    }
    if end == End::Hurried {
        tokio::time::sleep(Duration::from_millis(chance % HURRY_MILLIS)).await;
        for program in &programs {
            program.signal("KILL");
        }
    }
    for program in &mut programs {
        program.ended(WITHIN).await;
    }
}

/// Where the program stands that is upgraded.
struct Installed {
    path: PathBuf,
    /// Builds that take its place in turn.
    builds: [PathBuf; 2],
}

impl Installed {
    fn new(folder: &Path) -> Self {
        let builds = ["one", "other"].map(|name| folder.join(name));
        for build in &builds {
            std::fs::copy(liveqos(), build).unwrap();
        }
        let installed = Self { path: folder.join("liveqos"), builds };
        installed.upgrade();
        installed
    }

    /// Puts the build that does not run in place of the one that does.
    fn upgrade(&self) {
        use std::os::unix::fs::MetadataExt as _;
        let inode = |path: &Path| std::fs::metadata(path).map(|about| about.ino()).ok();
        let [one, other] = &self.builds;
        let next = if inode(&self.path) == inode(one) { other } else { one };
        let new = self.path.with_extension("new");
        std::fs::hard_link(next, &new).unwrap();
        std::fs::rename(new, &self.path).unwrap();
    }
}

/// What the collector has is much: it is not looked through all the time.
pub(crate) async fn seldom() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

const CLASSES: usize = 200;
/// Longer than a window and shorter than two, so that kills fall on every part of it.
const LONGEST_LIFE_MILLIS: u64 = 6_000;
/// How soon a program that was asked to stop is killed at the latest; it needs tens of milliseconds.
const HURRY_MILLIS: u64 = 100;
const WITHIN: Duration = Duration::from_mins(2);
