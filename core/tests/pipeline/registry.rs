//! Which class an observation belongs to: publishers that return, several sources and streams, late names, classes that
//! the platform ends.

use liveqos_core::model::{CloseReason, Fact, Protocol, ServerView, Total};

use crate::stage::{Class, SERVER, Stage, described, name, observed};

#[test]
fn a_publisher_that_returns_within_the_linger_keeps_its_class() {
    let mut stage = Stage::of([Class::new("s1")]);
    stage.run(18);
    stage.class().publishing = false;
    stage.run(1);
    stage.class().publishing = true;
    stage.run(20);
    assert_eq!((stage.output.batch.opened.len(), stage.output.batch.closed.len()), (1, 0));
    stage.class().publishing = false;
    stage.run(10);
    stage.class().publishing = true;
    stage.run(5);
    assert_eq!(stage.output.batch.closed.len(), 1, "away for longer than the linger");
    assert_eq!(stage.output.batch.closed[0].reason, CloseReason::Ended);
}

#[test]
fn a_stream_that_left_the_list_and_came_back_is_another_run_of_the_class() {
    let mut stage = Stage::of([Class::new("s1")]);
    stage.run(20);
    stage.class().listed = false;
    stage.run(10);
    stage.class().listed = true;
    stage.run(20);
    let batch = &stage.output.batch;
    assert_eq!((batch.opened.len(), batch.closed.len()), (2, 1));
    assert!(batch.opened[1].at > batch.closed[0].at);
}

#[test]
fn two_sources_of_one_stream_count_its_media_once_and_their_viewers_together() {
    let mut stage = Stage::of([Class::new("s1").waiting(10)]);
    for second in 0..30_u64 {
        let view = ServerView {
            publishing: Some(true),
            ingest_bytes: Some(Total { base: 9, value: second * 125_000 }),
            viewers: Some(vec![(Protocol::Hls, 5)]),
            ..ServerView::default()
        };
        let now = stage.now();
        stage.pipeline.observe(observed("nginx", "live/s1", now, Fact::Server(Box::new(view))));
        stage.run(1);
    }
    assert_eq!(stage.output.batch.opened.len(), 1);
    let sample = stage.output.batch.samples.last().expect("samples were cut");
    assert_eq!(sample.viewers().map(|viewers| viewers.value), Some(15));
    assert_eq!(sample.ingest().and_then(|leg| leg.bytes), Some(5 * 125_000));
}

#[test]
fn one_source_that_lost_the_stream_does_not_end_what_another_sees() {
    let mut stage = Stage::of([Class::new("s1")]);
    stage.run(10);
    for _ in 0..20 {
        let now = stage.now();
        stage.pipeline.observe(observed("nginx", "live/s1", now, Fact::Gone));
        stage.run(1);
    }
    assert_eq!(stage.output.batch.closed, []);
}

#[test]
fn a_late_name_continues_the_open_window() {
    let mut stage = Stage::of([Class::new("s1").viewers(20)]);
    stage.run(22);
    let now = stage.now();
    stage.pipeline.observe(observed(SERVER, "live/s1", now, described("course-7-lesson-3")));
    stage.run(8);
    let batch = &stage.output.batch;
    assert_eq!(batch.opened[1].session.id, name("course-7-lesson-3"));
    assert_eq!((batch.closed[0].session.id.as_str(), batch.closed[0].reason), ("s1", CloseReason::Renamed));
    let first = batch
        .samples
        .iter()
        .find(|sample| sample.session.id == name("course-7-lesson-3"))
        .expect("sampled under its new name");
    let watched = first.stutter().expect("players reported").value.whole;
    assert!((watched - 100.0).abs() < 6.0, "the whole window is continued: {watched}");
}

#[test]
fn two_classes_that_are_renamed_to_one_lose_nothing() {
    let mut screen = Class::new("s2").viewers(10);
    screen.polled = true;
    let mut stage = Stage::of([Class::new("s1").viewers(20), screen]);
    stage.run(22);
    let now = stage.now();
    stage.pipeline.observe(observed(SERVER, "live/s2", now, described("s1")));
    stage.run(10);
    let watched: f64 = stage.pipeline.fleet().totals().filter_map(|(_, totals)| totals.watch_seconds).sum();
    // Cut at 30 s: 121 ticks of 30 viewers.
    assert!((watched - 121.0 * 0.25 * 30.0).abs() < 1e-6, "{watched}");
}

#[test]
fn the_platform_ends_a_class() {
    let mut stage = Stage::of([Class::new("s1").viewers(3)]);
    stage.run(12);
    let now = stage.now();
    assert!(stage.pipeline.registry_mut().end(&name("s1"), now));
    assert!(!stage.pipeline.registry_mut().end(&name("unknown"), now));
    stage.classes.clear();
    stage.run(10);
    assert_eq!(stage.output.batch.closed.len(), 1);
    let closed = &stage.output.batch.closed[0];
    assert_eq!((closed.at, closed.reason), (now, CloseReason::Ended));
    assert!(stage.pipeline.registry().session(&name("s1")).is_none());
}
