//! A busy edge: 200 classes, 10,000 viewers, 40,000 log lines a second, and faults in its larger classes at random
//! instants.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveqos_testkit::collector::Collector;
use liveqos_testkit::daemon::{Launch, get};
use liveqos_testkit::seed::random;
use liveqos_testkit::wait;

use super::fault::{Faults, Shown};
use super::prometheus::Rivals;
use super::report::{mib, share, spread, threads};
use super::usage::{Cpu, memory};
use super::webhook::{Notification, Webhook};
use super::writer::{Writer, now};
use super::{asked, measured};

/// A fault that was made.
struct Onset {
    session: String,
    /// When its viewers' stalls became more often, and when they became few again, Unix ms.
    from: u64,
    to: u64,
    shown: Shown,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_edge() {
    let _alone = wait::alone().await;
    let (folder, webhook, collector) = (tempfile::tempdir().unwrap(), Webhook::start().await, Collector::grpc());
    let log = folder.path().join("cmcd.log");
    std::fs::write(&log, "").unwrap();
    let config = format!(
        "discover = false\n[[logs]]\npath = {log:?}\nposition_file = {:?}\napp = \"live\"\n[[alerts.webhooks]]\nurl = \"{}\"\n[otlp]\nendpoint = \"{}\"\n",
        folder.path().join("cmcd.position"),
        webhook.url("liveqos"),
        collector.url(),
    );
    let daemon = Launch::new(&config).folder(folder.path()).program(&measured()).ready().await;
    let rivals = Rivals::start(folder.path(), &daemon.address.to_string(), &webhook.url("prometheus")).await;
    let sizes = sizes(asked("LOAD_VIEWERS", 10_000, 4_000));
    let faults = Arc::new(Faults::new(CLASSES, stall()));
    let writer = Writer::start(&log, sizes, Arc::clone(&faults));
    tokio::time::sleep(Duration::from_secs(asked("LOAD_WARM", WARM_SECONDS, WARM_SECONDS))).await;

    let pids = [daemon.program.child.id(), rivals.prometheus.child.id(), rivals.alertmanager.child.id()];
    let (cpus, began) = (pids.map(Cpu::of), Instant::now());
    let onsets = onsets(&faults, asked("LOAD_ONSETS", 40, 2)).await;
    let took = began.elapsed();
    let used: Vec<Cpu> = pids.iter().zip(&cpus).map(|(pid, was)| Cpu::of(*pid).since(was)).collect();
    let written = writer.stop();
    let lines_a_second = written.lines as f64 / written.took.as_secs_f64();
    println!(
        "log: {lines_a_second:.0} lines/s of {} bytes, {} rotations; its writer took {:.1} % of a core and paused {:.2} s at most",
        written.bytes / written.lines,
        written.rotations,
        share(written.cpu, written.took),
        written.longest_pause.as_secs_f64(),
    );
    let (resident, peak) = memory(pids[0]);
    println!(
        "liveqos: {:.1} % of a core over {:.0} s (must 16, aim 5); {:.1} MiB resident, {:.1} at most (must 96 MB, aim 48)",
        share(used[0].all, took),
        took.as_secs_f64(),
        mib(resident),
        mib(peak),
    );
    println!("  by thread: {}", threads(&used[0], took));
    println!(
        "prometheus {:.1} %, alertmanager {:.1} % of a core, {:.1} and {:.1} MiB",
        share(used[1].all, took),
        share(used[2].all, took),
        mib(memory(pids[1]).0),
        mib(memory(pids[2]).0),
    );
    let page = get(&format!("{}/metrics", daemon.url)).await.unwrap();
    let shed = page.lines().filter(|line| line.starts_with("liveqos_shed_total") && !line.ends_with(" 0"));
    println!("shed: {:?}", shed.collect::<Vec<_>>());
    println!("otlp requests taken: {}", collector.received().len());
    let notifications = webhook.notifications();
    delays("liveqos", &onsets, &notifications);
    delays("prometheus", &onsets, &notifications);
    assert!(
        !onsets.is_empty() && notifications.iter().any(|notification| notification.who == "liveqos"),
        "a fault causes a notification"
    );
}

/// Makes faults in the large classes, at random instants, each class well for a while before its next.
async fn onsets(faults: &Faults, count: u64) -> Vec<Onset> {
    let mut random = random("onsets");
    let mut running: Vec<(u16, u64)> = Vec::new();
    let mut out = Vec::new();
    let (mut made, mut next) = (0, now() + FIRST);
    while made < count || !running.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let at = now();
        running.retain(|(class, from)| {
            if at < from + HOLD {
                return true;
            }
            faults.heal(*class);
            let session = format!("class{class}");
            match faults.shown(*class) {
                Some(shown) => out.push(Onset { session, from: *from, to: at, shown }),
                None => println!("no viewer of {session} stalled in {HOLD} ms"),
            }
            false
        });
        if made < count && at >= next {
            let class = (made % LARGE as u64) as u16;
            faults.begin(class);
            running.push((class, at));
            made += 1;
            next = at + 2_000 + random.u64(..5_000);
        }
    }
    tokio::time::sleep(CALM).await;
    out
}

/// Prints how long `who` took to notify of each fault, and its false alerts.
fn delays(who: &str, onsets: &[Onset], notifications: &[Notification]) {
    let notifications: Vec<&Notification> =
        notifications.iter().filter(|notification| notification.who == who).collect();
    let first = |session: &str, fires: bool, from: u64, to: u64| {
        let is_it = |notification: &&&Notification| {
            notification.session == session && notification.fires == fires && (from..to).contains(&notification.at)
        };
        notifications.iter().find(is_it).map(|notification| notification.at)
    };
    let (mut line, mut stall, mut healed, mut standing) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut behind_tick = Vec::new();
    for onset in onsets {
        let until = onset.to + AFTER;
        let Some(fired) = first(&onset.session, true, onset.from, until) else {
            // An alert that already fired when the fault began is not of it.
            let last = notifications
                .iter()
                .rfind(|notification| notification.session == onset.session && notification.at < onset.from);
            standing += u64::from(last.is_some_and(|notification| notification.fires));
            continue;
        };
        line.push(fired.saturating_sub(onset.shown.written));
        stall.push(fired.saturating_sub(onset.shown.began));
        behind_tick.push(fired % TICK_MILLIS);
        healed.extend(first(&onset.session, false, fired.max(onset.to), until + AFTER).map(|at| at - onset.to));
    }
    let is_true = |notification: &Notification| {
        onsets.iter().any(|onset| {
            onset.session == notification.session && (onset.from..onset.to + AFTER).contains(&notification.at)
        })
    };
    let wrong: Vec<&Notification> =
        notifications.iter().filter(|notification| notification.fires && !is_true(notification)).copied().collect();
    let large = wrong
        .iter()
        .filter(|notification| (0..LARGE).any(|class| notification.session == format!("class{class}")))
        .count();
    println!(
        "{who}: notified of {} of {} faults ({standing} already fired); {} false alerts, {large} of them of large classes",
        line.len(),
        onsets.len(),
        wrong.len(),
    );
    for notification in wrong.iter().take(SHOWN) {
        let last = onsets
            .iter()
            .filter(|onset| onset.session == notification.session && onset.from < notification.at)
            .map(|onset| onset.to);
        let after = last
            .max()
            .map_or("no fault before".to_owned(), |to| format!("{} ms after it healed", notification.at - to));
        println!("  false: {}, {after}", notification.session);
    }
    println!("  first line that shows it -> webhook: {}", spread(line));
    println!("  first stall of a viewer  -> webhook: {}", spread(stall));
    if who == "liveqos" {
        // It evaluates on a grid: the rest is the way to the webhook.
        println!("  last tick -> webhook: {}", spread(behind_tick));
    }
    println!("  healed -> webhook: {}", spread(healed));
}

/// Viewers of each class: some large enough for the bar, the rest as many as remain.
fn sizes(viewers: u64) -> Vec<u16> {
    let rest = (viewers as usize).saturating_sub(LARGE * LARGE_SIZE).max(CLASSES) / (CLASSES - LARGE);
    (0..CLASSES).map(|class| if class < LARGE { LARGE_SIZE as u16 } else { rest as u16 }).collect()
}

fn stall() -> RangeInclusive<u64> {
    let text = std::env::var("LOAD_STALL").unwrap_or_else(|_| "300-1300".to_owned());
    let (from, to) = text.split_once('-').expect("LOAD_STALL is FROM-TO");
    from.parse().expect("milliseconds")..=to.parse().expect("milliseconds")
}

/// liveqos evaluates at every multiple of this many Unix ms.
const TICK_MILLIS: u64 = 250;
const CLASSES: usize = 200;
const LARGE: usize = 20;
const LARGE_SIZE: usize = 160;
const WARM_SECONDS: u64 = 20;
/// From the start of the measurement to the first fault.
const FIRST: u64 = 2_000;
const HOLD: u64 = 20_000;
/// How long after a fault an alert may still be of it.
const AFTER: u64 = 20_000;
/// False alerts that are shown one by one.
const SHOWN: usize = 10;
const CALM: Duration = Duration::from_secs(25);
