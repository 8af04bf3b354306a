//! Reports of players to the running program: the script, the tokens of the guide, responses, and the figures made of
//! a report.

use std::time::Duration;

use liveqos::players::{Key, SCRIPT};
use liveqos_core::model::Timestamp;
use liveqos_testkit::daemon::{Daemon, file};
use liveqos_testkit::wait::until_blocking;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn token(session: &str, expiry: u64) -> String {
    Key::new(KEY.as_bytes()).expect("long enough").sign(session, Timestamp::from_secs(expiry))
}

fn report(session: &str, sequence: u32) -> String {
    format!(
        r#"{{"sessionId":"{session}","viewer":"v1","sequence":{sequence},"protocol":"webrtc","exposure":5,"totalFreezesDuration":0.5,"freezeCount":1,
        "framesDecoded":125,"packetsReceived":297,"packetsLost":3,"bytesReceived":250000,"roundTripTime":0.04,"firstFrame":0.8}}"#
    )
}

#[test]
fn the_token_in_the_guide_is_valid() {
    let guide = include_str!("../../docs/player.md");
    assert!(guide.contains(KEY) && guide.contains(&token("class101", 1_900_000_000)));
}

#[test]
fn a_page_that_has_the_script_is_not_sent_it_again() {
    let daemon = Daemon::start("");
    let (status, head, body) = daemon.ask_with("GET", "/liveqos-player.js", "origin: https://school.example\r\n", "");
    assert!(status == 200 && body == SCRIPT, "{status}");
    for line in ["content-type: text/javascript", "access-control-allow-origin: *", "cache-control: public"] {
        assert!(head.contains(line), "{head}");
    }
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag");
    let (status, _, body) = daemon.ask_with("GET", "/liveqos-player.js", &format!("if-none-match: {tag}\r\n"), "");
    assert_eq!((status, body.as_str()), (304, ""));
}

#[test]
fn a_signed_report_counts_once_and_an_unsigned_one_not_at_all() {
    let key = file(KEY);
    let daemon = Daemon::start(&format!("[beacon]\nkey_file = \"{}\"\n", key.path().display()));
    let good = token("class101", 4_000_000_000);
    let post = |session: &str, sequence, token: &str| {
        let (status, head, body) = daemon.ask_with(
            "POST",
            &format!("/v1/beacon?token={token}"),
            "content-type: text/plain\r\n",
            &report(session, sequence),
        );
        (status, head + &body)
    };
    assert_eq!(post("class101", 0, &good).0, 204);
    assert_eq!(post("class101", 0, &good).0, 204, "a repeated report is accepted");
    let bearer = format!("authorization: Bearer {good}\r\n");
    assert_eq!(daemon.ask_with("POST", "/v1/beacon", &bearer, &report("class101", 1)).0, 204);
    for (session, token) in [("class102", good.as_str()), ("class101", "")] {
        let (status, response) = post(session, 2, token);
        assert!(status == 401 && response.contains("bad_token"), "{status} {response}");
    }
    let (status, response) = post("class101", 2, &token("class101", 1_000));
    assert!(status == 410 && response.contains("expired"), "{status} {response}");
    let broken = daemon.ask_with("POST", &format!("/v1/beacon?token={good}"), "", "{");
    assert!(broken.0 == 400 && broken.2.contains("bad_report"), "{broken:?}");
    let long = daemon.ask_with("POST", "/v1/beacon", &bearer, &" ".repeat(5_000));
    assert!(long.0 == 413 && long.2.contains("too_large"), "{long:?}");

    let sample = until_blocking("a sample", || {
        let (_, body) = daemon.ask("GET", "/api/v1/sessions/class101/samples", "");
        let response: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        response["samples"].get(0).cloned()
    });
    assert_eq!((&sample["watch_seconds"], &sample["stutter_seconds"]), (&10.into(), &1.into()), "{sample}");
    assert_eq!(sample["packet_loss_ratio"], 0.01, "{sample}");
    assert_eq!(sample["sources"]["stutter_ratio"], "player", "{sample}");
    for (reason, count) in [
        ("beacon_repeated", 1.0),
        ("beacon_bad_token", 2.0),
        ("beacon_expired", 1.0),
        ("beacon_bad_report", 1.0),
        ("beacon_too_large", 1.0),
    ] {
        assert!((daemon.shed(reason) - count).abs() < 0.1, "{reason}: {}", daemon.shed(reason));
    }
}

#[test]
fn the_room_for_more_viewers_is_reported() {
    let key = file(KEY);
    let config = format!(
        "[beacon]\nkey_file = \"{}\"\n[ingest]\nburst = 10000\nrate_per_second = 10000\n",
        key.path().display()
    );
    let daemon = Daemon::start(&config);
    let bearer = format!("authorization: Bearer {}\r\n", token("class101", 4_000_000_000));
    let (_, before) = daemon.ask("GET", "/api/v1/sources", "");
    assert!(!before.contains("capacity"), "no viewer, no figure: {before}");
    let mut sequence = 0;
    until_blocking("the room for more viewers", || {
        for viewer in 0..24 {
            // No more than the time that passes between two rounds.
            let body = report("class101", sequence).replace("\"v1\"", &format!("\"v{viewer}\""));
            let body = body.replace("\"exposure\":5", "\"exposure\":0.2").replace("Duration\":0.5", "Duration\":0");
            assert_eq!(daemon.ask_with("POST", "/v1/beacon", &bearer, &body).0, 204);
        }
        sequence += 1;
        let sources = daemon.ask_json("/api/v1/sources");
        let page = daemon.ask("GET", "/metrics", "").1;
        let row = page.lines().find(|line| line.starts_with("liveqos_node_viewer_room")).map(str::to_owned);
        let (Some(room), Some(row)) = (sources["capacity"]["room"].as_u64(), row) else {
            std::thread::sleep(ROUND);
            return None;
        };
        assert_eq!(sources["capacity"]["viewers"], 24, "{sources}");
        let short = sources["capacity"]["short"].as_str().expect("what runs out first");
        assert!(["processor", "network"].contains(&short), "{sources}");
        let exported: f64 = row.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a value");
        assert!(exported >= 0.0 && exported.fract() == 0.0, "{row} beside {room}");
        Some(())
    });
}

/// Time between two rounds of reports.
const ROUND: Duration = Duration::from_millis(500);
