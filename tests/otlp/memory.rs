//! What a node holds in memory while no collector takes anything: bounded by what the spool keeps at hand, however long
//! it lasts. The node is a process of its own, so that its resident memory is the product's and not the test's.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use liveqos::otlp::{ExportQueue, MemoryQueue, Otlp, OtlpSettings, Pace, Protocol, Room, Signal};
use liveqos::storage::{Opened, StateSettings};
use liveqos_core::trace::Value;
use liveqos_testkit::collector::{Collector, Reply};
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::resetting_listener::ResettingListener;
use liveqos_testkit::telemetry::{sample, session};

use crate::outage::{CUTS, different, fast};
use crate::{node as resource, sampling};

/// So that ten minutes are three times what the spool keeps at hand of log events.
const CLASSES: u32 = 400;
const CUT: Duration = Duration::from_millis(50);

/// What a node reports after a cut.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    /// Bytes of all records so far.
    records: u64,
    /// Resident bytes.
    resident: u64,
    /// Records that wait.
    waits: u64,
}

/// A node that exports samples, and what it reports.
struct Node {
    _program: Program,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Node {
    /// This very program, asked for the one test that is no test.
    fn start(folder: &Path, url: &str, queue: &str) -> Self {
        let mut command = command(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "memory::node", "--nocapture"]);
        command.env(FOLDER, folder).env(URL, url).env(OUTBOX, queue);
        let mut program = Program::start("node", &mut command, folder, true);
        let lines = BufReader::new(program.child.stdout.take().unwrap()).lines();
        Self { _program: program, lines }
    }

    /// Its next report; `None` at its end.
    fn next(&mut self) -> Option<Report> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| {
            let mut numbers = line.strip_prefix(REPORT)?.split(' ').map(|number| number.parse().unwrap());
            Some(Report { records: numbers.next()?, resident: numbers.next()?, waits: numbers.next()? })
        })
    }

    /// By how much it grew in the second half of the outage for each byte of records in it.
    fn grows(&mut self) -> f64 {
        let reports: Vec<_> = (0..CUTS).map(|_| self.next().unwrap()).collect();
        let (half, end) = (reports[reports.len() / 2], reports[reports.len() - 1]);
        assert!(end.waits > CUTS * u64::from(CLASSES) / 10 * 9, "the records wait: {end:?}");
        end.resident.saturating_sub(half.resident) as f64 / (end.records - half.records) as f64
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_whatever_the_collector_does() {
    let folder = tempfile::tempdir().unwrap();
    let (resets, nowhere) = (ReservedPort::new(), ReservedPort::new());
    let _resetting = ResettingListener::start(resets.address()).await;
    let mut cases = vec![
        ("gone", format!("http://{}", nowhere.address()), None),
        ("resetting", format!("http://{}", resets.address()), None),
    ];
    for (name, reply) in [
        ("429", Reply::Http(429, None)),
        ("503", Reply::Http(503, Some("0"))),
        ("hanging", Reply::Hang),
        ("slow", Reply::Slow(CUT * 200)),
    ] {
        let collector = Collector::http();
        collector.always(Some(reply));
        cases.push((name, collector.url(), Some(collector)));
    }
    let mut nodes = tokio::task::JoinSet::new();
    for (name, url, collector) in cases {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let mut node = Node::start(&folder, &url, ON_DISK);
        nodes.spawn_blocking(move || (name, node.grows(), collector));
    }
    while let Some(done) = nodes.join_next().await {
        let (name, grows, _collector) = done.unwrap();
        eprintln!("{name}: grew by {grows:.3} of the records");
        assert!(grows < 0.25, "{name}: {grows} of what came stayed in memory");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_measurement_shows_records_that_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = ReservedPort::new();
    let mut node = Node::start(folder.path(), &format!("http://{}", nowhere.address()), IN_MEMORY);
    let grows = tokio::task::spawn_blocking(move || node.grows()).await.unwrap();
    eprintln!("in memory: grew by {grows:.3} of the records");
    assert!(grows > 0.75, "{grows} of what came stayed in memory, and all of it did");
}

/// The collector is back: what waited goes, and reading it from the disk takes no more than a few requests' worth.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_without_being_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let port = ReservedPort::new();
    let address = port.address();
    let mut node = Node::start(folder.path(), &format!("http://{address}"), ON_DISK);
    let (before, mut node) =
        tokio::task::spawn_blocking(move || ((0..CUTS).filter_map(|_| node.next()).last().unwrap(), node))
            .await
            .unwrap();
    let collector = Collector::http_on(address);
    let drained = tokio::task::spawn_blocking(move || {
        let mut most = 0;
        while let Some(report) = node.next() {
            most = most.max(report.resident);
            if report.waits == 0 {
                return most;
            }
        }
        panic!("it ended with a backlog");
    });
    let most = drained.await.unwrap();
    assert_eq!(different(&collector.received()), (CUTS * u64::from(CLASSES)) as usize, "nothing is lost");
    let more = most.saturating_sub(before.resident);
    eprintln!(
        "{} bytes of records; it held {} before the drain and {more} more in it",
        before.records, before.resident
    );
    assert!(more < before.records / 4, "{more} bytes more for a backlog of {}", before.records);
}

#[test]
#[ignore = "no test: the process that the tests of memory start"]
fn node() {
    // Without the variables it was not started by those tests.
    if std::env::var_os(URL).is_none() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(export());
}

/// Exports ten minutes of samples, then reports its memory until it is ended.
#[expect(clippy::print_stdout, reason = "this is how it reports")]
async fn export() {
    let settings = OtlpSettings { protocol: Protocol::HttpProtobuf, timeout: CUT * 20, ..crate::grpc_to(var(URL)) };
    let state = StateSettings { dir: Some(Path::new(&var(FOLDER)).join("state")), ..StateSettings::default() };
    let opened = Opened::open(&state, &[("main".to_owned(), [true; 3])]).unwrap();
    let queue: Arc<dyn ExportQueue> = if var(OUTBOX) == ON_DISK {
        opened.export_queue("main").unwrap()
    } else {
        Arc::new(MemoryQueue::with_room(Room { records: usize::MAX, bytes: usize::MAX }))
    };
    let pace = Pace { items: 256, ..fast() };
    let otlp = Otlp::start_with(&settings, &resource(), sampling(), &|_| Ok(Arc::clone(&queue)), pace).unwrap();
    let mut records = 0;
    for tick in 0.. {
        if tick < CUTS {
            let text = "x".repeat(1_000);
            let samples = (0..CLASSES)
                .map(|number| sample(&session(number), tick, vec![("stream.url", Value::Text(text.as_str().into()))]));
            otlp.take(&samples.collect::<Vec<_>>());
            records += u64::from(CLASSES) * text.len() as u64;
        }
        let state = opened.state.as_ref().unwrap();
        assert_eq!(state.keep(Vec::new(), Vec::new()), 0, "nothing is given up");
        tokio::time::sleep(CUT).await;
        let resident = procfs::process::Process::myself().unwrap().statm().unwrap().resident * procfs::page_size();
        println!("{REPORT}{records} {resident} {}", queue.backlog(Signal::Logs).records);
    }
}

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the tests of memory"))
}

const FOLDER: &str = "NODE_FOLDER";
const URL: &str = "NODE_URL";
const OUTBOX: &str = "NODE_OUTBOX";
const ON_DISK: &str = "disk";
const IN_MEMORY: &str = "memory";
const REPORT: &str = "node: ";
