//! The node's own script on pages with hls.js, dash.js, Shaka, mpegts.js and no player at all: the figures of liveqos
//! by it beside the page's own record, over a link that narrows and breaks.

use std::path::Path;
use std::time::Duration;

use liveqos::players::Key;
use liveqos_core::model::Timestamp;
use liveqos_testkit::daemon::Daemon;
use liveqos_testkit::wait;
use tokio::time::sleep;

use super::browser::{self, Browser};
use super::class::{self, BYTES_PER_SECOND};
use super::measured::Measured;
use super::nginx::Nginx;
use super::packages;
use super::page_server::PageServer;
use super::relay::{Link, Relay};
use super::truth::Truth;

/// Each with its file and protocol.
const PLAYERS: [(&str, &str, &str); 5] = [
    ("hls", "hls/hls/index.m3u8", "hls"),
    ("dash", "dash/dash/index.mpd", "dash"),
    ("shaka", "dash/shaka/index.mpd", "dash"),
    ("mpegts", "hls/mpegts/class.flv", "http-flv"),
    ("plain", "hls/plain/class.mp4", ""),
];

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one run from beginning to end")]
async fn the_script_reports_what_media_elements_show() {
    let _alone = wait::alone().await;
    let folder = folder("snippet");
    let packages = packages::installed();
    let media = folder.join("media");
    let _publisher = class::publish(&folder, &media);
    let recording = class::recording();
    for name in ["class.mp4", "class.flv"] {
        std::fs::copy(recording.with_file_name(name), media.join("hls").join(name)).unwrap();
    }
    let nginx = Nginx::start(&folder, &media).await;
    let pages = PageServer::start(packages::folder().join("pages"), packages).await;
    let daemon = open_daemon(&folder).await;

    let mut links = Vec::new();
    let mut frames = Vec::new();
    for (number, (name, file, protocol)) in PLAYERS.into_iter().enumerate() {
        let relay = Relay::start(nginx.port).await;
        // One file is the whole class: it comes little faster than it plays, as a live one does.
        let whole = ["mpegts", "plain"].contains(&name);
        let free = if whole { Link::Narrow(BYTES_PER_SECOND * 6 / 5) } else { Link::Free };
        relay.set(free);
        frames.push((
            "frame",
            format!(
                "{}/snippet.html?name={name}&player={name}&src=http://127.0.0.1:{}/{file}&node={}&session={name}&token={}&protocol={protocol}",
                pages.origin(number),
                relay.port,
                daemon.url,
                token(name)
            ),
        ));
        links.push((relay, free));
    }
    let wall = format!("http://127.0.0.1:{}/wall.html", pages.port);
    let wall = reqwest::Url::parse_with_params(&wall, frames).unwrap();
    let _browser = Browser::open(&folder, "chromium", wall.as_str());
    for (name, ..) in PLAYERS {
        wait::until(&format!("the first picture of {name}"), START, async || {
            let record = pages.record(name);
            assert!(record.errors().is_empty(), "{name}: {:?}", record.errors());
            record.first("playing")
        })
        .await;
    }

    sleep(Duration::from_secs(12)).await;
    set(&links, Some(Link::Silent));
    sleep(Duration::from_secs(10)).await;
    set(&links, None);
    sleep(Duration::from_secs(15)).await;
    set(&links, Some(Link::Narrow(BYTES_PER_SECOND * 2 / 5)));
    sleep(Duration::from_secs(20)).await;
    set(&links, None);
    sleep(Duration::from_secs(15)).await;
    for (name, ..) in PLAYERS {
        pages.ask(name, "stop");
    }
    sleep(LAST_SAMPLE).await;

    eprintln!("{}", browser::version());
    let mut errors = Vec::new();
    for (name, ..) in PLAYERS {
        let record = pages.record(name);
        let stop = record.events.iter().find(|event| event["action"] == "stop").unwrap()["t"].as_f64().unwrap();
        let truth = Truth::of(&record.events, stop);
        let measured = Measured::by_daemon(&daemon, name).await;
        let error = measured.percent() - truth.percent();
        eprintln!(
            "{name:6} page {:6.3} of {:6.2} s = {:6.3} % ({} stalls), liveqos {:6.3} of {:6.2} s, error {error:+.3} points",
            truth.stalled,
            truth.exposure,
            truth.percent(),
            truth.stalls,
            measured.stalled,
            measured.exposure
        );
        let kept = serde_json::json!({ "info": record.info, "events": record.events, "rows": record.rows });
        std::fs::write(folder.join(format!("{name}.page.json")), kept.to_string()).unwrap();
        assert!(truth.stalled > 1.0, "{name}: the links did not hurt");
        errors.push((name, error));
    }
    assert!(errors.iter().all(|(_, error)| error.abs() <= 0.1), "{errors:?}");
}

fn set(links: &[(Relay, Link)], link: Option<Link>) {
    for (relay, free) in links {
        relay.set(link.unwrap_or(*free));
    }
}

/// An empty folder for this run.
pub(crate) fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("players").join(name);
    std::fs::remove_dir_all(&folder).unwrap_or_default();
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A daemon that takes beacons signed with this test's key.
pub(crate) async fn open_daemon(folder: &Path) -> Daemon {
    let key = folder.join("beacon.key");
    std::fs::write(&key, KEY).unwrap();
    Daemon::start_in(folder, &format!("discover = false\n[beacon]\nkey_file = \"{}\"\n", key.display())).await
}

/// The token of a player for a class.
pub(crate) fn token(session: &str) -> String {
    let now = liveqos::platform::clock::now().millis() / 1_000;
    Key::new(KEY.as_bytes()).unwrap().sign(session, Timestamp::from_secs(now + 3_600))
}

const KEY: &str = "the key of this test, 32 bytes or more";
const START: Duration = Duration::from_mins(1);
/// The last reports are in a sample within this time.
pub(crate) const LAST_SAMPLE: Duration = Duration::from_secs(8);
