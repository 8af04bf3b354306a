//! The node's own script on a WebRTC page: a browser watches the demonstration's class through a link that loses,
//! narrows and breaks; the figures of liveqos beside the frames that the page presented.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use liveqos::demo::{Class, ClassOptions, ExternalViewer, Impairment};
use liveqos::platform::clock;
use liveqos_core::media::{Playout, PlayoutTotals};
use liveqos_core::model::Timestamp;
use liveqos_testkit::daemon::value;
use liveqos_testkit::wait;
use serde_json::Value;
use tokio::time::sleep;

use super::browser::{self, Browser};
use super::measured::Measured;
use super::packages;
use super::page_server::{PageServer, Record};
use super::snippet::{LAST_SAMPLE, folder, open_daemon, token};

/// The class and those that came in.
#[derive(Clone)]
struct Door {
    class: Arc<Class>,
    guests: Arc<Mutex<Vec<ExternalViewer>>>,
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one run from its begin to its end")]
async fn tells_what_a_webrtc_viewer_sees() {
    let _alone = wait::alone().await;
    let folder = folder("webrtc");
    let class = Class::start(ClassOptions { viewers: 1, seed: 5, clock: clock::now }).await.unwrap();
    let door = Door { class: Arc::new(class), guests: Arc::default() };
    let whep = serve(door.clone()).await;
    let pages = PageServer::start(packages::folder().join("pages"), packages::folder()).await;
    let daemon = open_daemon(&folder).await;
    let url = format!(
        "http://127.0.0.1:{}/webrtc.html?name=webrtc&whep=http://127.0.0.1:{whep}/&node={}&connection={}&element={}",
        pages.port,
        daemon.url,
        token("rtc-connection"),
        token("rtc-element")
    );
    let _browser = Browser::open(&folder, "chromium", &url);
    wait::until("the first picture", START, async || {
        let record = pages.record("webrtc");
        assert!(record.errors().is_empty(), "{:?}", record.errors());
        record.first("playing")
    })
    .await;

    let good = Impairment::default();
    for (impairment, seconds) in [
        (good, 12),
        (Impairment { loss_ratio: 0.05, ..good }, 12),
        (good, 6),
        (Impairment { rate_bits_per_second: Some(250_000), queue_bytes: 16_000, ..good }, 12),
        (good, 8),
        (Impairment { loss_ratio: 1.0, ..good }, OUTAGE),
        (good, 15),
    ] {
        door.guests.lock().unwrap().iter().for_each(|guest| guest.impair(impairment));
        sleep(Duration::from_secs(seconds)).await;
    }
    let link = door.guests.lock().unwrap()[0].link();
    pages.ask("webrtc", "stop");
    sleep(LAST_SAMPLE).await;

    let record = pages.record("webrtc");
    // In a page that is kept from running these differ by what it cannot know.
    let ways = [Batch::Even, Batch::SinceNone, Batch::Last].map(|batch| seen(&record, batch));
    let truth = ways[0];
    let percents = ways.map(|totals| 100.0 * totals.frozen.as_secs_f64() / totals.exposure.as_secs_f64());
    let (low, high) = percents.iter().fold((f64::MAX, 0.0_f64), |(low, high), one| (low.min(*one), high.max(*one)));
    let stats = record.events.iter().rfind(|event| event["ev"] == "stats").unwrap();
    eprintln!("{}: {link:?}", browser::version());
    eprintln!(
        "page: {} freezes, {:.3} of {:.3} s = {low:.3} to {high:.3} %; the browser: {} freezes, {} s, {} pauses, {} s",
        truth.freezes,
        truth.frozen.as_secs_f64(),
        truth.exposure.as_secs_f64(),
        stats["freezeCount"],
        stats["totalFreezesDuration"],
        stats["pauseCount"],
        stats["totalPausesDuration"]
    );
    let kept = serde_json::json!({ "info": record.info, "events": record.events, "rows": record.rows });
    std::fs::write(folder.join("webrtc.page.json"), kept.to_string()).unwrap();
    assert!(truth.frozen > Duration::from_secs(5), "the link did not hurt");
    assert!(high - low <= WIDEST_POINTS, "the machine was too busy for its page: {low} to {high} %");

    let number = |value: &Value| value.as_f64().unwrap();
    let browser_frozen = number(&stats["totalFreezesDuration"]) + number(&stats["totalPausesDuration"]);
    let browser_percent = 100.0 * browser_frozen / truth.exposure.as_secs_f64();
    for (session, low, high) in [("rtc-element", low, high), ("rtc-connection", browser_percent, browser_percent)] {
        let measured = Measured::by_daemon(&daemon, session).await;
        let error = measured.percent() - measured.percent().clamp(low, high);
        eprintln!(
            "{session}: {:.3} of {:.3} s = {:.3} %, error {error:+.3} points",
            measured.stalled,
            measured.exposure,
            measured.percent()
        );
        assert!(error.abs() <= 0.1 + (high - low) / 4.0, "{session}: {error} points");
    }
    // Each of the two sessions reports every packet.
    let lost = value(&daemon.metrics().await, "liveqos_packet_lost_total", &[]).unwrap();
    eprintln!("liveqos: {lost} packets lost; the link dropped {} on the way to the one browser", link.media_dropped());
    assert!((lost - 2.0 * link.media_dropped() as f64).abs() <= 2.0, "{lost} packets lost");
}

/// When frames were presented of which the page was notified at once: only the instant of the last one is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    /// Evenly since the frame before.
    Even,
    /// Evenly since the page last saw that there was none.
    SinceNone,
    /// All with the last one.
    Last,
}

/// The playout by the page's own record, by the rules of W3C webrtc-stats.
fn seen(record: &Record, batch: Batch) -> PlayoutTotals {
    let at = |seconds: f64| Timestamp::from_nanos((seconds * 1e9) as u64);
    let mut playout = Playout::default();
    let mut before: Option<(f64, f64)> = None;
    for row in &record.rows {
        let (now, count) = (row[0].as_f64().unwrap(), row[1].as_f64().unwrap());
        let (was, shown) = before.unwrap_or((now, count - 1.0));
        let frames = count - shown;
        if frames < 1.0 && batch != Batch::SinceNone {
            continue;
        }
        let was = if batch == Batch::Last { now } else { was };
        (1..=frames as u64).for_each(|frame| playout.frame(at(was + (now - was) * frame as f64 / frames)));
        before = Some((now, count));
    }
    playout.totals(at(record.first("stopped").unwrap()))
}

async fn serve(door: Door) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/", post(admit)).with_state(door);
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    port
}

async fn admit(State(door): State<Door>, offer: String) -> Response {
    let guest = door.class.invite(&offer).await.unwrap();
    let answer = guest.answer().to_owned();
    door.guests.lock().unwrap().push(guest);
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], answer).into_response()
}

const START: Duration = Duration::from_mins(1);
/// How far what the page cannot know of its picture may go, in points.
const WIDEST_POINTS: f64 = 8.0;
/// Seconds in which fewer than 450 packets are missed: a browser takes a longer gap of numbers for a new stream and
/// counts none of it.
const OUTAGE: u64 = 6;
