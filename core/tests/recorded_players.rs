//! Recorded players: the stall ratio by the page's own record compared with that by the access log.

#[path = "../../tests/browsers/truth.rs"]
#[expect(dead_code, reason = "the tests with real players use more of it")]
mod truth;

use std::path::Path;

use liveqos_core::access_log::{ClassRule, LogFold, LogFormat};
use liveqos_core::model::{Fact, PlayerView, Timestamp};
use truth::Truth;

struct Run {
    truth: (f64, f64),
    measured: (f64, f64),
    starts: u32,
    viewers: u32,
}

/// Folds a run's access log, with its event posts where `events`, in the order of their instants.
fn run(name: &str, events: bool) -> Run {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cmcd");
    let read = |ending: &str| std::fs::read_to_string(folder.join(format!("{name}.{ending}"))).unwrap_or_default();
    let format = LogFormat::json([]).expect("the default names");
    let mut fold = LogFold::new(format, ClassRule::Path(None), "log".into(), [1, 2]);
    let text = read("access.jsonl") + &if events { read("posts.jsonl") } else { String::new() };
    let mut lines: Vec<_> =
        text.lines().map(|line| (fold.time_of(line.as_bytes()).expect("an instant"), line)).collect();
    lines.sort_by_key(|(at, _)| *at);
    let mut sum = PlayerView::default();
    let add = |observations: Vec<liveqos_core::model::Observation>, sum: &mut PlayerView| {
        for observation in observations {
            assert!(observation.stream.as_str().ends_with("/class101"), "{}", observation.stream);
            let Fact::Players(view) = observation.fact else { panic!("players only") };
            sum.exposure += view.exposure;
            sum.stalled += view.stalled;
            sum.stall_starts += view.stall_starts;
            sum.viewers = sum.viewers.max(view.viewers);
        }
    };
    let mut now = Timestamp::default();
    for (at, line) in lines {
        fold.line(line.as_bytes()).expect("a clean line");
        now = at;
        add(fold.drain(now), &mut sum);
    }
    add(fold.finish(now), &mut sum);
    Run {
        truth: truth(&read("truth.json")),
        measured: (sum.stalled.as_secs_f64(), sum.exposure.as_secs_f64()),
        starts: sum.stall_starts,
        viewers: sum.viewers,
    }
}

/// Seconds stalled and seconds played or stalled, by the page.
fn truth(text: &str) -> (f64, f64) {
    let page: serde_json::Value = serde_json::from_str(text).expect("json");
    let truth = Truth::of(page["events"].as_array().expect("events"), page["last"].as_f64().expect("an instant"));
    (truth.stalled, truth.exposure)
}

/// Checks a run and prints it; returns the error in percentage points.
#[expect(clippy::print_stdout, reason = "the figures are the purpose of the run")]
fn error(name: &str, events: bool) -> f64 {
    let run = run(name, events);
    let ratio = |(part, whole): (f64, f64)| 100.0 * part / whole;
    let error = ratio(run.measured) - ratio(run.truth);
    println!(
        "{name:16} {:8} page {:6.3} of {:6.2} s = {:6.3} %, measured {:6.3} of {:6.2} s = {:6.3} %, error {error:+.3} points, {} stalls",
        if events { "events" } else { "requests" },
        run.truth.0,
        run.truth.1,
        ratio(run.truth),
        run.measured.0,
        run.measured.1,
        ratio(run.measured),
        run.starts,
    );
    assert_eq!(run.viewers, 1, "{name}");
    error
}

#[test]
fn the_stall_ratio_of_recorded_players() {
    let runs = [
        ("h-clean", true),
        ("h-loss5", false),
        ("h-rate1000", true),
        ("h-rate1300v1", false),
        ("hls-v1-query", false),
        ("hls-v1-headers", false),
        ("hls-v2-events", true),
        ("dash-v1-query", false),
        ("dash-v2-events", true),
        ("shaka-v1-query", false),
        ("shaka-v2-events", true),
        ("way-hls-v1", false),
        ("way-hls-v2", true),
        ("way-hls-v2-requests", false),
        ("way-dash-v1", false),
        ("way-dash-v2", true),
        ("way-shaka-v1", false),
        ("way-shaka-v2", true),
        ("late-shaka-v2", false),
    ];
    let wrong: Vec<_> = runs
        .map(|(name, events)| (name, error(name, events)))
        .into_iter()
        .filter(|(_, error)| error.abs() > 0.1)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A pause of 10 s, a seek back, a seek to the live edge, 10 s in the background: none is a stall, and none that is
/// reported is exposure. hls.js does not report the background.
#[test]
fn pauses_seeks_and_the_background_are_neither_stall_nor_exposure() {
    for (name, events, hidden) in
        [("manners-hls-v2", true, 10.0), ("manners-dash-v1", false, 10.0), ("manners-dash-v2", true, 0.0)]
    {
        error(name, events);
        let run = run(name, events);
        assert!((run.measured.0 - run.truth.0).abs() < 0.05, "{name}: {:?}, by the page {:?}", run.measured, run.truth);
        let more = run.measured.1 - run.truth.1 - hidden;
        assert!(more.abs() < 2.5, "{name}: {:?}, by the page {:?}", run.measured, run.truth);
    }
}

/// Requests alone do not contain how long a player had stalled before it jumped.
#[test]
fn requests_alone_miss_the_stall_before_a_jump() {
    let jumps = error("h-rate1000", false);
    assert!((-2.0..0.1).contains(&jumps), "{jumps}");
}
