//! A collector that is away and comes back to ten minutes of 200 classes, and is slow to take them: what is cut from
//! then on is seen within 6 s of its own instant, before and while the backlog drains, and nothing is lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use liveqos::otlp::Signal;
use liveqos::otlp::sampling::{Sampling, SamplingSettings};
use liveqos::storage::{Opened, StateSettings};
use liveqos_core::model::GRID;
use liveqos_testkit::collector::{Collector, Reply};
use liveqos_testkit::daemon::Daemon;
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::resetting_listener::ResettingListener;
use liveqos_testkit::stat_server::StatServer;
use liveqos_testkit::telemetry::{START, sample, session};
use liveqos_testkit::wait::{alone, until};

use super::kills::seldom;

const CLASSES: usize = 200;
/// Cuts in ten minutes.
const CUTS: u32 = 120;
const PAST: usize = CLASSES * CUTS as usize;
/// So long the daemon meets the collector's trouble: the waits between attempts are at their longest then.
const AWAY: Duration = Duration::from_secs(20);
/// What a request takes a collector that is back, so that the backlog is there for some cuts.
const BUSY: Duration = Duration::from_millis(500);
/// Cuts that are looked at after the return.
const AFTER: usize = 3;
const BAR: Duration = Duration::from_secs(6);
const WITHIN: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn live_samples_are_seen_while_ten_minutes_drain() {
    let _machine = alone().await;
    let ports = [ReservedPort::new(), ReservedPort::new()];
    let [resets, nowhere] = ports.each_ref().map(ReservedPort::address);
    let resetting = ResettingListener::start(resets).await;
    let again = async || {
        resetting.stop().await;
        Collector::http_on(resets)
    };
    tokio::join!(
        outage("resetting", resets, again),
        outage("gone", nowhere, async || Collector::http_on(nowhere)),
        in_a_mood("429", Reply::Http(429, None)),
        in_a_mood("503", Reply::Http(503, Some("1"))),
        in_a_mood("slow", Reply::Slow(Duration::from_secs(3))),
    );
}

/// With a collector that is there and answers so while it is away.
async fn in_a_mood(name: &str, reply: Reply) {
    let collector = Collector::http();
    collector.always(Some(reply));
    outage(name, collector.address, async || collector).await;
}

/// A daemon with ten minutes to send meets what is at `address`, then the collector that `back` returns.
async fn outage(name: &str, address: SocketAddr, back: impl AsyncFnOnce() -> Collector) {
    let folder = tempfile::tempdir().unwrap();
    ten_minutes(&folder.path().join("state"));
    let classes = StatServer::many(CLASSES).await;
    let config = format!(
        "[kernel]\ntcp_info = false\n[state]\ndir = \"{}\"\n[otlp]\nendpoint = \"http://{address}\"\nprotocol = \"http/protobuf\"\n\
         [otlp.metrics]\nenabled = false\n\
         [[sources]]\nkind = \"nginx-rtmp\"\nname = \"many\"\nurl = \"{}\"\ninterval = \"1s\"\n",
        folder.path().join("state").display(),
        classes.url
    );
    let daemon = Daemon::start_in(folder.path(), &config).await;
    until("all classes", WITHIN, async || (daemon.live().await? == CLASSES).then_some(())).await;
    tokio::time::sleep(AWAY).await;

    let collector = back().await;
    let returned = Clock::read();
    collector.always(Some(Reply::Slow(BUSY)));
    let seen = until("live samples", WITHIN, async || {
        seldom().await;
        let seen = Seen::since(&collector, &returned);
        (seen.cuts.len() > AFTER).then_some(seen)
    })
    .await;
    let cuts: Vec<u64> = seen.cuts.iter().copied().take(AFTER).collect();
    let of_cuts: Vec<_> = seen.live.iter().filter(|(at, _)| cuts.contains(at)).collect();
    let slowest = of_cuts.iter().map(|(_, late)| *late).max().unwrap();
    let behind = seen.behind;
    eprintln!(
        "{name}: {} samples of {AFTER} cuts after the return were seen {slowest:.2?} after their instant at the latest; \
         {behind} of {PAST} of the backlog came after the first of them",
        of_cuts.len()
    );
    assert_eq!(of_cuts.len(), AFTER * CLASSES, "{name}: all classes at each cut");
    assert!(slowest <= BAR, "{name}: {slowest:?}");
    assert!(behind > PAST / 4, "{name}: {behind} of the backlog came after them");

    collector.always(None);
    until("the backlog", WITHIN, async || {
        seldom().await;
        (Seen::since(&collector, &returned).past == PAST).then_some(())
    })
    .await;
    assert!(daemon.program.stop().await.success());
}

/// Leaves in `dir` what a daemon leaves that had no collector for ten minutes.
fn ten_minutes(dir: &Path) {
    let settings = StateSettings { dir: Some(dir.to_owned()), ..StateSettings::default() };
    let opened = Opened::open(&settings, &[("main".to_owned(), [true; 3])]).unwrap();
    let (outbox, state) = (opened.export_queue("main").unwrap(), opened.state.as_ref().unwrap());
    let mut sampling = Sampling::new(&SamplingSettings::default(), "edge");
    for tick in 0..u64::from(CUTS) {
        let numbers = 0..u32::try_from(CLASSES).unwrap();
        let samples: Vec<_> = numbers.map(|number| sample(&session(number), tick, Vec::new())).collect();
        sampling.take(&samples, |_| true).into_iter().for_each(|record| outbox.append(record));
        assert_eq!(state.keep(Vec::new(), Vec::new()), 0);
    }
    assert!(state.settled(WITHIN), "{:?}", state.health());
    assert_eq!(outbox.backlog(Signal::Logs).records, PAST as u64);
}

/// One instant on both clocks.
struct Clock {
    at: Instant,
    wall: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "samples carry the wall clock's time")]
    fn read() -> Self {
        Self { at: Instant::now(), wall: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() }
    }

    /// The wall clock's time since its epoch at `at`.
    fn wall(&self, at: Instant) -> Duration {
        self.wall + at.saturating_duration_since(self.at)
    }
}

/// What a collector has taken since it is back.
struct Seen {
    /// Different samples of the backlog.
    past: usize,
    /// Cuts of the live classes.
    cuts: BTreeSet<u64>,
    /// Samples of theirs: their instant, and how long after it they were seen.
    live: Vec<(u64, Duration)>,
    /// Samples of the backlog that came after the first of them.
    behind: usize,
}

impl Seen {
    fn since(collector: &Collector, returned: &Clock) -> Self {
        let old = (START + GRID * CUTS).nanos();
        let (mut past, mut cuts, mut live, mut behind) = (BTreeSet::new(), BTreeSet::new(), Vec::new(), 0);
        for request in collector.received().iter().filter(|request| request.taken) {
            let seen = returned.wall(request.at) + BUSY;
            for log in request.logs() {
                let at = log.time_unix_nano;
                if at < old {
                    let new = past.insert((at, log.trace_id));
                    behind += usize::from(new && !live.is_empty());
                } else if Duration::from_nanos(at) >= returned.wall {
                    cuts.insert(at);
                    live.push((at, seen.saturating_sub(Duration::from_nanos(at))));
                }
            }
        }
        Self { past: past.len(), cuts, live, behind }
    }
}
