//! The players on links that go bad, on and off the screen: liveqos' word of each beside the page's own.

use std::time::Duration;

use tokio::time::sleep;

use super::class::BYTES_PER_SECOND;
use super::page_server::PageServer;
use super::relay::Link;
use super::stage::{Setup, Stage, Watcher};
use super::told::Told;
use super::truth::Truth;
use super::{browser, packages};

const SETUPS: [Setup; 7] = [
    Setup { name: "hls-v1", player: "hls", version: 1, events: false, mode: "query" },
    Setup { name: "hls-v2", player: "hls", version: 2, events: true, mode: "query" },
    Setup { name: "hls-v2-requests", player: "hls", version: 2, events: false, mode: "query" },
    Setup { name: "dash-v1", player: "dash", version: 1, events: false, mode: "query" },
    Setup { name: "dash-v2", player: "dash", version: 2, events: true, mode: "query" },
    Setup { name: "shaka-v1", player: "shaka", version: 1, events: false, mode: "query" },
    Setup { name: "shaka-v2", player: "shaka", version: 2, events: true, mode: "query" },
];

/// What happens to all players alike, after some seconds of calm.
async fn clean(_: &PageServer, _: &[Watcher]) {
    sleep(Duration::from_secs(20)).await;
}

async fn way(_: &PageServer, watchers: &[Watcher]) {
    sleep(Duration::from_secs(15)).await;
    set(watchers, Link::Narrow(BYTES_PER_SECOND * 7 / 10));
    sleep(Duration::from_secs(20)).await;
    set(watchers, Link::Free);
    sleep(Duration::from_secs(20)).await;
    set(watchers, Link::Silent);
    sleep(Duration::from_secs(8)).await;
    set(watchers, Link::Free);
    sleep(Duration::from_secs(25)).await;
}

async fn squeeze(_: &PageServer, watchers: &[Watcher]) {
    sleep(Duration::from_secs(10)).await;
    set(watchers, Link::Narrow(BYTES_PER_SECOND * 7 / 10));
    sleep(Duration::from_secs(18)).await;
    set(watchers, Link::Free);
    sleep(Duration::from_secs(20)).await;
}

async fn outage(_: &PageServer, watchers: &[Watcher]) {
    sleep(Duration::from_secs(10)).await;
    set(watchers, Link::Silent);
    sleep(Duration::from_secs(8)).await;
    set(watchers, Link::Free);
    sleep(Duration::from_secs(20)).await;
}

async fn refused(_: &PageServer, watchers: &[Watcher]) {
    sleep(Duration::from_secs(10)).await;
    set(watchers, Link::Refused);
    sleep(Duration::from_secs(8)).await;
    set(watchers, Link::Free);
    sleep(Duration::from_secs(20)).await;
}

async fn pause(pages: &PageServer, watchers: &[Watcher]) {
    sleep(Duration::from_secs(10)).await;
    ask(pages, watchers, "pause");
    sleep(Duration::from_secs(10)).await;
    ask(pages, watchers, "play");
    sleep(Duration::from_secs(15)).await;
}

async fn hide(pages: &PageServer, watchers: &[Watcher]) {
    sleep(Duration::from_secs(10)).await;
    // All frames are of one page.
    ask(pages, &watchers[..1], "hide");
    sleep(Duration::from_secs(25)).await;
}

async fn seek(pages: &PageServer, watchers: &[Watcher]) {
    sleep(Duration::from_secs(12)).await;
    ask(pages, watchers, "back");
    sleep(Duration::from_secs(8)).await;
    ask(pages, watchers, "edge");
    sleep(Duration::from_secs(15)).await;
}

fn set(watchers: &[Watcher], link: Link) {
    for watcher in watchers {
        watcher.link(link);
    }
}

fn ask(pages: &PageServer, watchers: &[Watcher], action: &'static str) {
    for watcher in watchers {
        pages.ask(watcher.setup.name, action);
    }
}

/// One scenario with every player at once; prints its table and gives each player's error in points.
async fn run(scenario: &str, play: impl AsyncFnOnce(&PageServer, &[Watcher])) -> Vec<(&'static str, f64)> {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("players").join(scenario);
    std::fs::remove_dir_all(&folder).unwrap_or_default();
    std::fs::create_dir_all(&folder).unwrap();
    let stage = Stage::set(&folder).await;
    let only = std::env::var("LIVEQOS_PLAYERS").unwrap_or_default();
    let setups: Vec<Setup> =
        SETUPS.into_iter().filter(|setup| only.is_empty() || only.split(',').any(|name| name == setup.name)).collect();
    let (_browser, watchers) = stage.watch(&setups).await;
    play(&stage.pages, &watchers).await;
    ask(&stage.pages, &watchers, "stop");
    // The last words reach the log, and the daemon cuts what it heard.
    sleep(Duration::from_secs(15)).await;
    eprintln!("{scenario}: {}, packages of {}", browser::version(), packages::folder().display());
    let mut errors = Vec::new();
    for watcher in &watchers {
        let name = watcher.setup.name;
        let record = stage.pages.record(name);
        let end =
            record.events.iter().find(|event| event["action"] == "stop").and_then(|event| event["t"].as_f64()).unwrap();
        let truth = Truth::of(&record, end);
        let daemon = Told::by_daemon(&stage.daemon, &watcher.class).await;
        let replay = Told::by_replay(&stage.config, &stage.nginx.log, &watcher.class);
        let error = daemon.percent() - truth.percent();
        eprintln!(
            "{:16} {:8} {} page {:6.2} of {:6.2} s = {:6.3} % ({}), daemon {:6.2} of {:6.2} s, replay {:6.2} of {:6.2} s, error {error:+.3} points",
            name,
            scenario,
            record.info.as_ref().map_or("?", |info| info["version"].as_str().unwrap_or("?")),
            truth.stalled,
            truth.exposure,
            truth.percent(),
            truth.stalls,
            daemon.stalled,
            daemon.exposure,
            replay.stalled,
            replay.exposure,
        );
        let kept = serde_json::json!({ "info": record.info, "events": record.events, "rows": record.rows, "class": watcher.class });
        std::fs::write(folder.join(format!("{name}.page.json")), kept.to_string()).unwrap();
        errors.push((name, error));
    }
    errors
}

macro_rules! scenarios {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn is_told() {
                let _alone = super::super::wait::alone().await;
                let errors = super::run(stringify!($name), super::$name).await;
                assert!(errors.iter().all(|(_, error)| error.abs() <= 0.1), "{errors:?}");
            }
        }
    )*};
}

scenarios! { way clean squeeze outage refused pause hide seek }
