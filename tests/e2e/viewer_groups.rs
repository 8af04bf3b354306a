//! Which group of viewers a fault of a class belongs to, by log lines and by reports of players to the running program:
//! the network that stalls is named as the viewers' access, the player that stalls as the player, and no address
//! leaves the node.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use liveqos::platform::clock;
use liveqos::players::Key;
use liveqos_testkit::daemon::{Daemon, file};
use liveqos_testkit::wait::until_blocking;
use serde_json::Value;

use super::player_listener::KEY;

const VIEWERS: u32 = 40;
/// Viewers of another class of the node, which is healthy, so that the cause is not the node.
const NEIGHBOURS: u32 = 20;
const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// The address of a viewer: five viewers share a network.
fn address(viewer: u32) -> String {
    format!("198.51.{}.{}", viewer / 5, 100 + viewer)
}

/// The browser of a viewer: one of four has Firefox.
const fn agent(viewer: u32) -> &'static str {
    if viewer.is_multiple_of(4) { FIREFOX } else { CHROME }
}

/// The class of a viewer: the neighbours have the numbers after those of the first class.
const fn class(viewer: u32) -> &'static str {
    if viewer < VIEWERS { "c1" } else { "c2" }
}

const fn of_one_network(viewer: u32) -> bool {
    viewer / 5 == 3
}

const fn of_one_player(viewer: u32) -> bool {
    viewer.is_multiple_of(4)
}

#[test]
fn a_log_shows_which_network_stalls() {
    let (cause, why) = by_log(of_one_network);
    assert_eq!(cause, "viewers_access", "{why}");
    assert!(why.contains("1 of 8 groups hold") && why.contains("most of all network "), "{why}");
}

#[test]
fn a_log_shows_which_player_stalls() {
    let (cause, why) = by_log(of_one_player);
    assert_eq!(cause, "player", "{why}");
    assert!(why.contains("1 of 2 groups hold") && why.contains("most of all player hls in Firefox 128"), "{why}");
}

#[test]
fn reports_show_which_network_stalls() {
    let (cause, why) = by_beacons(of_one_network);
    assert_eq!(cause, "viewers_access", "{why}");
    assert!(why.contains("1 of 8 groups hold") && why.contains("most of all network "), "{why}");
}

#[test]
fn reports_show_which_player_stalls() {
    let (cause, why) = by_beacons(of_one_player);
    assert_eq!(cause, "player", "{why}");
    assert!(why.contains("most of all player hls.js 1.7.4 in Firefox 128"), "{why}");
}

/// Cause and evidence for a class whose viewers are in an access log, behind a proxy that the log names.
fn by_log(stalls: fn(u32) -> bool) -> (String, String) {
    let mut log = file("");
    let daemon = Daemon::start(&format!(
        "[[logs]]\npath = \"{}\"\napp = \"live\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n",
        log.path().display()
    ));
    alerted(&daemon, |second, faulty| {
        let at = clock::now().millis();
        let mut lines = String::new();
        for viewer in 0..VIEWERS + NEIGHBOURS {
            let (class, is_stalled) = (class(viewer), faulty && viewer < VIEWERS && stalls(viewer));
            let head = format!("{{\"t\":{}.{:03},\"st\":200,\"b\":9000", at / 1_000, at % 1_000);
            if !is_stalled {
                let (address, agent) = (address(viewer), agent(viewer));
                let who = format!("\"ip\":\"10.0.0.2\",\"xff\":\"{address}\",\"ua\":\"{agent}\"");
                writeln!(lines, "{head},\"u\":\"/hls/{class}/{second}.ts\",\"q\":\"sid%3D%22v{viewer}%22\",{who}}}")
                    .expect("text");
            }
            let state = if is_stalled { 'r' } else { 'p' };
            let event = format!("e=ps,sid=\\\"v{viewer}\\\",sn={second},sta={state},ts={at},v=2");
            writeln!(lines, "{head},\"u\":\"/cmcd\",\"e\":\"{event}\"}}").expect("text");
        }
        log.write_all(lines.as_bytes()).expect("room on the disk");
    })
}

/// The same for a class whose pages report.
fn by_beacons(stalls: fn(u32) -> bool) -> (String, String) {
    let key = file(KEY);
    let daemon = Daemon::start(&format!("[beacon]\nkey_file = \"{}\"\n", key.path().display()));
    let signing = Key::new(KEY.as_bytes()).expect("long enough");
    let token = |class: &str| signing.sign(class, clock::now() + Duration::from_hours(1));
    alerted(&daemon, |second, faulty| {
        for viewer in 0..VIEWERS + NEIGHBOURS {
            let class = class(viewer);
            let stalled = u8::from(faulty && viewer < VIEWERS && stalls(viewer));
            let body = format!(
                r#"{{"sessionId":"{class}","viewer":"v{viewer}","sequence":{second},"protocol":"hls","player":"hls.js 1.7.4","exposure":1.0,
                "totalFreezesDuration":{stalled},"freezeCount":{stalled},"messageLatencies":[0.08,0.3]}}"#
            );
            let head = format!("x-forwarded-for: {}\r\nuser-agent: {}\r\n", address(viewer), agent(viewer));
            let (status, _, response) =
                daemon.ask_with("POST", &format!("/v1/beacon?token={}", token(class)), &head, &body);
            assert_eq!(status, 204, "{response}");
        }
        let page = daemon.ask("GET", "/metrics", "").1;
        let messages = page.lines().find(|line| line.starts_with("liveqos_message_latency_seconds_count"));
        if let Some(count) = messages.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()) {
            let in_time = page
                .lines()
                .find(|line| line.starts_with("liveqos_message_latency_seconds_bucket") && line.contains("le=\"0.1\""));
            let in_time =
                in_time.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).expect("a bound at 0.1");
            assert!((in_time * 2.0 - count).abs() < 1e-9, "half of the messages are in time: {in_time} of {count}");
        }
    })
}

/// Reports the class second by second, healthy at first, until an alert names a cause: the cause and its evidence.
fn alerted(daemon: &Daemon, mut report: impl FnMut(u32, bool)) -> (String, String) {
    let mut second = 0;
    until_blocking("a cause", || {
        report(second, second >= 8);
        second += 1;
        let (_, body) = daemon.ask("GET", "/api/v1/alerts", "");
        assert!(!body.contains("198.51"), "no address leaves the node: {body}");
        let response: Value = serde_json::from_str(&body).expect("JSON");
        let alerts = response["alerts"].as_array().expect("a list");
        let stutter =
            alerts.iter().find(|alert| alert["alertname"] == "LiveStutterHigh" && alert["cause"] != "unknown");
        if let Some(alert) = stutter {
            let metrics = daemon.ask("GET", "/metrics", "").1;
            assert!(!metrics.contains("198.51") && !metrics.contains("Firefox"), "no group is a label");
            return Some((alert["cause"].as_str().expect("text").to_owned(), alert["why"].to_string()));
        }
        std::thread::sleep(Duration::from_secs(1));
        None
    })
}
