//! Which notices people get, how soon, and that healthy classes cause none.

use std::time::Duration;

use NoticeState::{Firing, Resolved};
use liveqos_core::model::{Alert, Cause, Notice, NoticeState, Protocol, Timestamp};

use crate::stage::{Class, Stage, at};

const BASE: f64 = 0.003;
const FAULT: f64 = 0.04;

/// A class healthy for 40 s, then faulty for 40 s: the onset, and the first notice.
fn onset(viewers: u32, freeze_millis: u64, seed: u64) -> (Timestamp, Option<Notice>) {
    let class = Class::new("s1").viewers(viewers).stutter(BASE).freeze_millis(freeze_millis).seed(seed);
    let mut stage = Stage::of([class]);
    stage.run(40);
    assert_eq!(stage.output.notices, [], "healthy at first, seed {seed}");
    let onset = stage.now();
    stage.class().stutter = FAULT;
    stage.run(40);
    let first = stage.notices(Alert::LiveStutterHigh).first().map(|notice| (*notice).clone());
    (onset, first)
}

/// The slowest and the median delay of many seeds in milliseconds; a class that was not noticed counts as an hour.
fn delays(viewers: u32, freeze_millis: u64) -> (u64, u64) {
    let mut delays: Vec<u64> = (1..=SEEDS)
        .map(|seed| {
            let (onset, notice) = onset(viewers, freeze_millis, seed);
            notice.map_or(3_600_000, |notice| notice.at.since(onset).as_millis() as u64)
        })
        .collect();
    delays.sort_unstable();
    let (median, slowest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    eprintln!("{viewers} viewers, freezes of {freeze_millis} ms: median {median} ms, slowest {slowest} ms");
    (median, slowest)
}

#[test]
fn a_stutter_of_four_percent_raises_an_alert_within_seconds() {
    for (viewers, freeze, slowest) in
        [(150, 200, 2_000), (150, 500, 3_500), (50, 200, 5_000), (20, 200, 10_000), (10, 200, 15_000)]
    {
        let (_, measured) = delays(viewers, freeze);
        assert!(measured <= slowest, "{viewers} viewers: {measured} ms");
    }
}

#[test]
fn the_onset_of_the_alert_is_that_of_the_fault() {
    for seed in 1..=SEEDS {
        let (onset, notice) = onset(150, 200, seed);
        let notice = notice.expect("a stutter of 4 % raises an alert");
        let off = onset.since(notice.started_at).max(notice.started_at.since(onset));
        assert!(off <= Duration::from_millis(500), "onset {off:?} off, seed {seed}");
        assert!(notice.evidence.value > notice.evidence.threshold);
    }
}

#[test]
fn a_small_audience_needs_longer() {
    let (few, _) = delays(10, 200);
    let (many, _) = delays(150, 200);
    assert!(few > many * 2, "10 viewers after {few} ms, 150 after {many} ms");
}

#[test]
fn a_healthy_hour_raises_no_alert() {
    for freeze in [200, 500, 2_000] {
        for viewers in [10, 150] {
            let class = Class::new("s1").viewers(viewers).stutter(BASE).freeze_millis(freeze).seed(7);
            let mut stage = Stage::of([class]);
            stage.run(3_600);
            assert_eq!(stage.output.notices, [], "{viewers} viewers, freezes of {freeze} ms");
            let (stalled, watched) = stage.pipeline.fleet().totals().fold((0.0, 0.0), |sum, (_, totals)| {
                (sum.0 + totals.stutter_seconds.unwrap_or(0.0), sum.1 + totals.watch_seconds.unwrap_or(0.0))
            });
            let ratio: f64 = stalled / watched;
            assert!((0.001..0.006).contains(&ratio), "the hour had a base of {ratio}");
        }
    }
}

#[test]
fn stutter_resolves_once_healed_and_not_by_a_short_pause() {
    let mut stage = Stage::of([Class::new("s1").viewers(150).stutter(BASE)]);
    stage.run(30);
    stage.class().stutter = FAULT;
    stage.run(30);
    assert_eq!(stage.states(Alert::LiveStutterHigh), [Firing]);
    for _ in 0..5 {
        stage.class().stutter = 0.0;
        stage.run(3);
        stage.class().stutter = FAULT;
        stage.run(3);
    }
    assert_eq!(stage.states(Alert::LiveStutterHigh), [Firing], "3 s of health are not recovery");
    let healed = stage.now();
    stage.class().stutter = BASE;
    stage.run(60);
    assert_eq!(stage.states(Alert::LiveStutterHigh), [Firing, Resolved]);
    let [fired, resolved] = stage.notices(Alert::LiveStutterHigh)[..] else { panic!("two notices") };
    assert_eq!(fired.started_at, resolved.started_at, "one incident, one start");
    let after = resolved.at.since(healed);
    assert!(after >= Duration::from_secs(5) && after <= Duration::from_secs(20), "resolved after {after:?}");
    assert!(resolved.evidence.value < 0.7 * resolved.evidence.threshold);
}

#[test]
fn loss_is_evaluated_for_each_leg_apart() {
    let mut tcp = Class::new("s1").waiting(40);
    tcp.segments = Some((2_000, 2));
    let mut rtp = Class::new("s2").viewers(20);
    rtp.loss = Some(0.001);
    let mut stage = Stage::of([tcp, rtp]);
    stage.run(30);
    assert_eq!(stage.output.notices, []);

    // A healthy TCP leg of many segments must not hide an RTP leg that loses.
    stage.classes[0].segments = Some((2_000, 40));
    stage.classes[1].segments = Some((200_000, 0));
    stage.classes[1].loss = Some(0.03);
    stage.run(10);
    let fired: Vec<&str> = stage.notices(Alert::LivePacketLossHigh).iter().map(|notice| notice.subject.key()).collect();
    assert_eq!(fired, ["s1", "s2"]);
    for notice in stage.notices(Alert::LivePacketLossHigh) {
        assert!((0.01..0.05).contains(&notice.evidence.value), "{}", notice.evidence);
        assert!(notice.started_at >= at(29_750) && notice.at <= at(31_500));
    }
}

#[test]
fn players_that_begin_to_count_packets_do_not_hide_loss() {
    let mut class = Class::new("s1").viewers(20);
    class.players = Some(Protocol::HttpFlv);
    class.segments = Some((5_000, 0));
    let mut stage = Stage::of([class]);
    stage.run(60);
    stage.class().loss = Some(0.05);
    stage.run(10);
    assert_eq!(stage.states(Alert::LivePacketLossHigh), [Firing]);
}

#[test]
fn one_slow_viewer_of_three_is_the_95th_percentile_and_takes_longer_than_many() {
    let raised = |latencies: Vec<u64>, slow: usize| {
        let mut class = Class::new("s1").viewers(latencies.len() as u32);
        class.latency_millis = latencies;
        let mut stage = Stage::of([class]);
        stage.run(20);
        assert_eq!(stage.output.notices, []);
        stage.class().latency_millis[..slow].fill(900);
        stage.run(12);
        let [notice] = stage.notices(Alert::LiveLatencyHigh)[..] else { panic!("one notice") };
        assert!((notice.evidence.value - 0.9).abs() < 0.01, "{}", notice.evidence);
        (notice.at.since(at(20_000)), notice.evidence.size)
    };
    let (alone, of) = raised(vec![20, 30, 40], 1);
    assert!((of - 3.0).abs() < 1e-9 && alone > Duration::from_secs(4) && alone < Duration::from_secs(9), "{alone:?}");
    let (many, _) = raised(vec![30; 60], 20);
    assert!(many <= Duration::from_secs(1), "{many:?}");
}

#[test]
fn a_stream_is_down_when_viewers_wait_for_longer_than_five_seconds() {
    let mut stage = Stage::of([Class::new("s1").waiting(12)]);
    stage.run(20);
    stage.class().publishing = false;
    stage.run(5);
    assert_eq!(stage.output.notices, [], "a publisher may be away for five seconds");
    stage.run(3);
    let [notice] = stage.notices(Alert::LiveStreamDown)[..] else { panic!("one notice") };
    assert_eq!(notice.started_at, at(20_000), "since the publisher went");
    assert!((notice.evidence.size - 12.0).abs() < 1e-9);
    stage.class().publishing = true;
    stage.run(2);
    assert_eq!(stage.states(Alert::LiveStreamDown), [Firing, Resolved]);
}

#[test]
fn a_stream_without_waiting_viewers_raises_no_alert() {
    let mut stage = Stage::of([Class::new("s1").waiting(0)]);
    stage.run(20);
    stage.class().publishing = false;
    stage.run(60);
    assert_eq!(stage.output.notices, []);
    assert_eq!(stage.output.batch.closed.len(), 1, "the class just ends");
}

#[test]
fn a_frame_rate_far_below_the_declared_one_raises_an_alert() {
    let mut class = Class::new("s1");
    class.declared_fps = Some(25.0);
    let mut stage = Stage::of([class]);
    stage.run(30);
    assert_eq!(stage.output.notices, []);
    stage.class().fps = 8;
    stage.run(30);
    assert_eq!(stage.states(Alert::LiveFpsLow), [Firing]);
    stage.class().fps = 25;
    stage.run(30);
    assert_eq!(stage.states(Alert::LiveFpsLow), [Firing, Resolved]);
}

#[test]
fn a_frame_rate_without_a_declared_one_is_not_evaluated() {
    let mut stage = Stage::of([Class::new("s1")]);
    stage.run(20);
    stage.class().fps = 1;
    stage.run(30);
    assert_eq!(stage.output.notices, []);
}

#[test]
fn an_overloaded_node_raises_an_alert_with_itself_as_the_cause() {
    let mut stage = Stage::of([]);
    stage.load(Some(0.5));
    stage.run(20);
    stage.load(Some(0.99));
    stage.run(3);
    assert_eq!(stage.output.notices, [], "a burst is no overload");
    stage.run(7);
    let [notice] = stage.notices(Alert::LiveNodeOverloaded)[..] else { panic!("one notice") };
    assert_eq!(notice.cause, Cause::Node);
    stage.load(None);
    stage.run(60);
    assert_eq!(stage.states(Alert::LiveNodeOverloaded), [Firing], "a load that cannot be read is not a low one");
    stage.load(Some(0.2));
    stage.run(12);
    assert_eq!(stage.states(Alert::LiveNodeOverloaded), [Firing, Resolved]);
}

#[test]
fn a_silent_source_raises_an_alert_and_its_classes_are_unknown_not_healthy() {
    let mut stage = Stage::of([Class::new("s1").viewers(150).stutter(FAULT)]);
    stage.environment.sources = vec![("srs".into(), None)];
    stage.run(20);
    assert_eq!(stage.states(Alert::LiveStutterHigh), [Firing]);
    stage.class().polled = false;
    stage.class().players = None;
    stage.environment.sources[0].1 = Some(stage.now());
    stage.run(50);
    assert_eq!(stage.states(Alert::LiveSourceDown), [Firing]);
    assert_eq!(stage.notices(Alert::LiveSourceDown)[0].started_at, at(20_000));
    assert_eq!(stage.states(Alert::LiveStutterHigh), [Firing], "silence does not resolve");
    assert_eq!(stage.states(Alert::LiveStreamDown), [], "nor does it mean that the stream is down");
    stage.environment.sources[0].1 = None;
    stage.run(1);
    assert_eq!(stage.states(Alert::LiveSourceDown), [Firing, Resolved]);
}

#[test]
fn the_alert_of_a_source_resolves_when_it_is_removed_from_the_settings() {
    let mut stage = Stage::of([]);
    stage.environment.sources = vec![("srs".into(), Some(at(0)))];
    stage.run(5);
    stage.environment.sources.clear();
    stage.run(1);
    assert_eq!(stage.states(Alert::LiveSourceDown), [Firing, Resolved]);
}

#[test]
fn the_end_of_a_class_resolves_what_still_fires() {
    let mut stage = Stage::of([Class::new("s1").viewers(150).stutter(FAULT)]);
    stage.run(20);
    assert_eq!(stage.states(Alert::LiveStutterHigh), [Firing]);
    stage.class().listed = false;
    stage.class().players = None;
    stage.run(15);
    assert_eq!(stage.output.batch.closed.len(), 1);
    assert_eq!(stage.states(Alert::LiveStutterHigh), [Firing, Resolved]);
}

/// Classes under one alert; each seed is another hour of the same trouble.
const SEEDS: u64 = 40;
