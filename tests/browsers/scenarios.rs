//! Players on links that go bad, and with users who pause, seek and hide the page: the figures of liveqos beside those
//! of the page.

use std::path::Path;
use std::time::Duration;

use liveqos_testkit::wait;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::browser;
use super::class::BYTES_PER_SECOND;
use super::measured::Measured;
use super::page_server::Record;
use super::relay::Link;
use super::stage::{Setup, Stage, Watcher};
use super::truth::Truth;

/// The figures of one player that are compared.
struct Verdict {
    name: &'static str,
    truth: Truth,
    /// Other figures of the page for its seconds stalled: by when its scripts were notified, and by its position.
    other: [f64; 2],
    daemon: Measured,
    replay: Measured,
}

#[tokio::test(flavor = "multi_thread")]
async fn stalls_by_a_narrow_link_and_an_outage_are_measured_to_a_tenth_of_a_point() {
    let verdicts = run("way", async |_, watchers| {
        sleep(Duration::from_secs(12)).await;
        set(watchers, Link::Silent);
        sleep(Duration::from_secs(12)).await;
        set(watchers, Link::Free);
        sleep(Duration::from_secs(18)).await;
        set(watchers, Link::Narrow(BYTES_PER_SECOND / 2));
        sleep(Duration::from_secs(25)).await;
        set(watchers, Link::Free);
        sleep(Duration::from_secs(38)).await;
    })
    .await;
    for verdict in &verdicts {
        assert!(verdict.truth.stalled > 3.0, "the links did not hurt: {}", verdict.line());
    }
    near(&verdicts);
    agree(&verdicts);
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_seeks_and_time_in_the_background_are_no_stall() {
    let verdicts = run("manners", async |stage, watchers| {
        let ask = |action| watchers.iter().for_each(|watcher| stage.pages.ask(watcher.setup.name, action));
        sleep(Duration::from_secs(10)).await;
        ask("pause");
        sleep(Duration::from_secs(10)).await;
        ask("play");
        sleep(Duration::from_secs(8)).await;
        ask("back");
        sleep(Duration::from_secs(8)).await;
        ask("edge");
        sleep(Duration::from_secs(8)).await;
        // All frames are of one page: one hides them all.
        stage.pages.ask(watchers[0].setup.name, "hide");
        sleep(Duration::from_secs(20)).await;
    })
    .await;
    for verdict in &verdicts {
        // A player that does not report the background seems to stall there.
        assert!(verdict.off() < STALLED_SECONDS + verdict.truth.unseen, "{}", verdict.line());
    }
    // Players that send states are exact.
    let exact = verdicts.iter().filter(|verdict| EXACT.contains(&verdict.name));
    let wrong: Vec<_> =
        exact.filter(|verdict| verdict.off().abs() > EXACT_SECONDS + verdict.truth.unseen).map(Verdict::line).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Only these report that they are in the background.
    for verdict in verdicts.iter().filter(|verdict| ["dash-v2", "shaka-v2"].contains(&verdict.name)) {
        let off = verdict.daemon.exposure - verdict.truth.exposure;
        assert!(off.abs() < EXPOSURE_SECONDS, "{}", verdict.line());
    }
    agree(&verdicts);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_invented_of_players_that_are_cut_off() {
    let verdicts = run("refused", async |_, watchers| {
        sleep(Duration::from_secs(10)).await;
        set(watchers, Link::Refused);
        sleep(Duration::from_secs(8)).await;
        set(watchers, Link::Free);
        sleep(Duration::from_secs(15)).await;
    })
    .await;
    for verdict in &verdicts {
        // A stall that is open at the last report is counted for a while.
        let counted = if verdict.truth.is_open { OPEN_SECONDS } else { 0.0 };
        assert!(verdict.off() < INVENTED_SECONDS + counted, "{}", verdict.line());
    }
    agree(&verdicts);
}

impl Verdict {
    /// The daemon's stall ratio less the page's, in points.
    fn error(&self) -> f64 {
        self.daemon.percent() - self.truth.percent()
    }

    /// The least and the most of the page's other figures, less those of its events, in points: they differ where the
    /// machine did not keep up.
    fn blur(&self) -> (f64, f64) {
        let more = self.other.map(|stalled| 100.0 * (stalled - self.truth.stalled) / self.truth.exposure);
        more.into_iter().fold((0.0, 0.0), |(low, high), more| (low.min(more), high.max(more)))
    }

    /// How far the figures of the page differ, in points.
    fn width(&self) -> f64 {
        let (low, high) = self.blur();
        high - low
    }

    /// Whether the page knew what it showed.
    fn is_sharp(&self) -> bool {
        self.width() <= SHARP_POINTS
    }

    /// Whether it is measured to a tenth of a point, except for what requests do not contain. Where the machine starved
    /// the page, its player starved too and reported late; it must be within a point then.
    fn is_near(&self) -> bool {
        let Truth { early, fed, skipped, exposure, .. } = self.truth;
        let unreported = if EXACT.contains(&self.name) { 0.0 } else { 100.0 * (early + fed + skipped) / exposure };
        let points = if self.is_sharp() { POINTS } else { STARVED_POINTS + self.width() };
        let (low, high) = self.blur();
        (low - points - unreported..=high + points + unreported).contains(&self.error())
    }

    /// Seconds stalled by the daemon less those by the page.
    fn off(&self) -> f64 {
        self.daemon.stalled - self.truth.stalled
    }

    fn line(&self) -> String {
        let Self { name, truth, daemon, replay, .. } = self;
        format!(
            "{name:16} page {:6.2} of {:6.2} s = {:6.3} % ({} stalls, {:.2} s at its start, {:.2} s with a buffer, {:.2} s skipped; other figures {:+.3} to {:+.3} points), daemon {:6.2} of {:6.2} s, replay {:6.2} of {:6.2} s, error {:+.3} points",
            truth.stalled,
            truth.exposure,
            truth.percent(),
            truth.stalls,
            truth.early,
            truth.fed,
            truth.skipped,
            self.blur().0,
            self.blur().1,
            daemon.stalled,
            daemon.exposure,
            replay.stalled,
            replay.exposure,
            self.error()
        )
    }
}

/// Each is measured to a tenth of a point, and enough pages agree with themselves.
fn near(verdicts: &[Verdict]) {
    let sharp = verdicts.iter().filter(|verdict| verdict.is_sharp()).count();
    eprintln!("{sharp} of {} pages agree with themselves to {SHARP_POINTS} points", verdicts.len());
    let wrong: Vec<_> = verdicts.iter().filter(|verdict| !verdict.is_near()).map(Verdict::line).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(sharp >= LEAST_SHARP, "the machine was too busy for its players: the run shows nothing");
}

/// The daemon that followed the log and its replay agree.
fn agree(verdicts: &[Verdict]) {
    for verdict in verdicts {
        let (daemon, replay) = (verdict.daemon, verdict.replay);
        let more = (daemon.stalled - replay.stalled, daemon.exposure - replay.exposure);
        // A stall that is open at the end is counted for a while; else they are the same.
        let open = (more.0 - more.1).abs() < 0.05 && more.0 < OPEN_SECONDS + 0.05;
        let same = open || (more.0.abs() < 0.05 && more.1.abs() < 0.5);
        assert!(same, "{}", verdict.line());
    }
}

fn set(watchers: &[Watcher], link: Link) {
    for watcher in watchers {
        watcher.link(link);
    }
}

/// Runs a scenario with every player at once, prints its table, and keeps the records of pages and edge below
/// `target/tmp/players`.
async fn run(scenario: &str, play: impl AsyncFnOnce(&Stage, &[Watcher])) -> Vec<Verdict> {
    let _alone = wait::alone().await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("players").join(scenario);
    std::fs::remove_dir_all(&folder).unwrap_or_default();
    std::fs::create_dir_all(&folder).unwrap();
    let stage = Stage::set(&folder).await;
    let (_browser, watchers) = stage.watch(&SETUPS).await;
    play(&stage, &watchers).await;
    for watcher in &watchers {
        stage.pages.ask(watcher.setup.name, "stop");
    }
    // The last reports reach the log, and the daemon cuts its samples.
    sleep(Duration::from_secs(12)).await;
    let records: Vec<Record> = watchers.iter().map(|watcher| stage.pages.record(watcher.setup.name)).collect();
    eprintln!("{scenario}: {}, {}", browser::version(), versions(&records));
    let mut verdicts = Vec::new();
    for (watcher, record) in watchers.iter().zip(&records) {
        verdicts.push(verdict(&stage, watcher, record).await);
        let page = json!({ "class": watcher.class, "info": record.info, "events": record.events, "rows": record.rows });
        std::fs::write(folder.join(format!("{}.page.json", watcher.setup.name)), page.to_string()).unwrap();
    }
    verdicts
}

async fn verdict(stage: &Stage, watcher: &Watcher, record: &Record) -> Verdict {
    let log = std::fs::read_to_string(&stage.nginx.log).unwrap();
    let last = last_report(&log, watcher);
    let truth = Truth::of(&record.events, last);
    let notified = Truth::of(&record.notified(), last).stalled;
    let unplayed = if truth.is_open { None } else { Truth::unplayed(&record.events, &record.rows, last) };
    let verdict = Verdict {
        name: watcher.setup.name,
        truth,
        other: [notified, unplayed.unwrap_or(notified)],
        daemon: Measured::by_daemon(&stage.daemon, &watcher.class).await,
        replay: Measured::by_replay(&stage.config, &stage.nginx.log, &watcher.class),
    };
    eprintln!("{}", verdict.line());
    verdict
}

/// When the player last reported that it plays: by a media request or by a state, where it sends states also by any
/// request. The edge does not know what happened later.
fn last_report(log: &str, watcher: &Watcher) -> f64 {
    let (folder, sid) = (format!("/{}/", watcher.class), format!("sid=\"{}-0000", watcher.setup.name));
    let reports = |line: &Value| {
        let path = line["u"].as_str().unwrap_or_default();
        let body = line["e"].as_str().unwrap_or_default();
        let counts = EXACT.contains(&watcher.setup.name) || !path.contains("/index.");
        (path.starts_with(&folder) && counts) || (body.contains(&sid) && body.contains("sta="))
    };
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(reports).filter_map(|line| line["t"].as_f64()).fold(0.0, f64::max)
}

fn versions(records: &[Record]) -> String {
    let mut versions: Vec<String> = records
        .iter()
        .filter_map(|record| record.info.as_ref())
        .map(|info| format!("{} {}", info["player"].as_str().unwrap_or("?"), info["version"].as_str().unwrap_or("?")))
        .collect();
    versions.dedup();
    versions.join(", ")
}

const SETUPS: [Setup; 7] = [
    Setup { name: "hls-v1", player: "hls", version: 1, events: false, mode: "query" },
    Setup { name: "hls-v2", player: "hls", version: 2, events: true, mode: "query" },
    Setup { name: "hls-v2-requests", player: "hls", version: 2, events: false, mode: "header" },
    Setup { name: "dash-v1", player: "dash", version: 1, events: false, mode: "query" },
    Setup { name: "dash-v2", player: "dash", version: 2, events: true, mode: "query" },
    Setup { name: "shaka-v1", player: "shaka", version: 1, events: false, mode: "query" },
    Setup { name: "shaka-v2", player: "shaka", version: 2, events: true, mode: "query" },
];
/// Players that send states.
const EXACT: [&str; 2] = ["hls-v2", "dash-v2"];
/// How far the daemon's stall ratio may be off, in points.
const POINTS: f64 = 0.1;
/// How far the figures of a page may differ, in points, to require [`POINTS`], and how many such pages a run must have.
const SHARP_POINTS: f64 = 0.25;
const LEAST_SHARP: usize = 3;
/// How far it may be off, in points, where the page itself was starved.
const STARVED_POINTS: f64 = 1.0;
/// Most stall time of a player that is cut off beyond what its page shows.
const INVENTED_SECONDS: f64 = 0.5;
/// How much less may be measured: when a player was hidden is known to a request only.
const EXPOSURE_SECONDS: f64 = 7.0;
/// Most stall time of a player without states that its media element does not report: its clock stands still under
/// load.
const STALLED_SECONDS: f64 = 1.0;
const EXACT_SECONDS: f64 = 0.05;
/// How long the daemon believes a stall after the last report; a replay ends with that.
const OPEN_SECONDS: f64 = 4.0;
