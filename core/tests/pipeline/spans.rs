//! The trace of a class of two and a half minutes with one incident: which spans, under what, and when.

use std::fmt::Write;

use liveqos_core::model::{Fact, GRID, Observation, PlayerView, Protocol, ServerView, TICK, Timestamp, Total};
use liveqos_core::trace::{Parent, SpanCommand, SpanName, SpanRef};

use crate::stage::{BEACON, Class, SERVER, START, Stage, at, described, observed};

/// The class: healthy, a fault from 60 s to 80 s, over at 150 s.
fn class() -> Stage {
    let mut stage = Stage::of([Class::new("s1").viewers(150).stutter(0.003)]);
    stage.run(60);
    stage.class().stutter = 0.08;
    stage.run(20);
    stage.class().stutter = 0.003;
    stage.run(70);
    stage.class().listed = false;
    stage.class().players = None;
    stage.run(15);
    stage
}

fn since_start(at: Timestamp) -> String {
    format!("{:.2}", at.seconds() - START.seconds())
}

fn reference(this: SpanRef) -> String {
    format!("{}@{}", this.name.as_str(), since_start(Timestamp::from_nanos(this.ordinal)))
}

/// One line a command, times in seconds since the class began.
fn lines(commands: &[SpanCommand]) -> String {
    let mut out = String::new();
    for command in commands {
        match command {
            SpanCommand::Export(span) => {
                let parent = match span.parent {
                    Parent::Platform => "the platform".to_owned(),
                    Parent::Span(this) => reference(this),
                };
                let keys: Vec<&str> = span.attributes.iter().map(|(key, _)| *key).collect();
                let (this, start, end) = (reference(span.this), since_start(span.start), since_start(span.end));
                let error = if span.error.is_some() { ", error" } else { "" };
                let events = span.events.len();
                writeln!(out, "span  {this} {start}..{end} under {parent}, {events} events{error}: {}", keys.join(" "))
            }
            SpanCommand::Emit(log) => {
                writeln!(out, "event {} {} in {}", log.event.name, since_start(log.event.at), reference(log.span))
            }
        }
        .expect("a string takes every line");
    }
    out
}

#[test]
fn a_class_of_two_and_a_half_minutes() {
    insta::assert_snapshot!(lines(&class().output.commands));
}

#[test]
fn the_same_class_gives_the_same_commands() {
    assert_eq!(class().output.commands, class().output.commands);
}

#[test]
fn events_are_the_samples_at_their_times_and_hang_in_their_segment() {
    let stage = class();
    let mut logged = Vec::new();
    let mut in_spans = Vec::new();
    for command in &stage.output.commands {
        match command {
            SpanCommand::Emit(log) if log.event.name == "live.qos.sample" => {
                let mut event = log.event.clone();
                let (key, _) = event.attributes.remove(0);
                assert_eq!(key, "session.id");
                logged.push((log.span, event));
            }
            SpanCommand::Export(span) if span.this.name == SpanName::TeachingConduct => {
                assert!(span.end.since(span.start).as_secs() <= 60);
                assert_eq!(span.end.floor(GRID), span.end);
                in_spans.extend(span.events.iter().map(|event| (span.this, event.clone())));
            }
            _ => {}
        }
    }
    assert_eq!(logged, in_spans);
    let cuts: Vec<Timestamp> = stage.output.batch.samples.iter().map(|sample| sample.window.end).collect();
    assert_eq!(in_spans.iter().map(|(_, event)| event.at).collect::<Vec<_>>(), cuts);
    assert!(cuts.iter().all(|cut| cut.floor(GRID) == *cut));
}

#[test]
fn the_incident_has_the_figures_of_the_fault_not_of_the_recovery() {
    let stage = class();
    let incident = stage.output.commands.iter().find_map(|command| match command {
        SpanCommand::Export(span) if span.this.name == SpanName::QosIncident => Some(span),
        _ => None,
    });
    let incident = incident.expect("one incident");
    assert!(incident.start.since(at(60_000)).max(at(60_000).since(incident.start)) <= TICK * 2);
    let value = incident.attributes.iter().find(|(key, _)| *key == "live.evidence.value");
    let liveqos_core::trace::Value::Float(value) = value.expect("evidence").1 else { panic!("a number") };
    assert!(value > 0.01, "the fault exceeded the limit, not {value}");
    assert!(!incident.error.as_ref().expect("an error").starts_with("resolved"));
}

/// Within one tick the observations of different sources may arrive in any order. The order of those of one source
/// matters (the newer replaces the older), and the name of the class must arrive before the class opens, or the class
/// is renamed.
#[test]
fn the_order_of_sources_within_a_tick_does_not_matter() {
    let mut plays = Vec::new();
    for backwards in [false, true] {
        let mut stage = Stage::of([]);
        stage.pipeline.observe(observed(SERVER, "live/s1", at(0), described("s1")));
        for tick in 0..260_u64 {
            let mut observations = observations(tick);
            if backwards {
                observations.reverse();
            }
            for observation in observations {
                stage.pipeline.observe(observation);
            }
            stage.tick();
        }
        plays.push((lines(&stage.output.commands), stage.output.batch.samples));
    }
    assert_eq!(plays[0], plays[1]);
    assert_eq!(plays[0].1.len(), 12);
}

fn observations(tick: u64) -> Vec<Observation> {
    let now = at(tick * 250);
    let view = |each: u64| {
        Fact::Server(Box::new(ServerView {
            publishing: Some(true),
            ingest_bytes: Some(Total { base: each, value: tick * each }),
            viewers: Some(vec![(Protocol::Webrtc, 20)]),
            ..ServerView::default()
        }))
    };
    let players = Fact::Players(Box::new(PlayerView {
        protocol: Some(Protocol::Webrtc),
        viewers: 20,
        exposure: TICK * 20,
        stalled: TICK * u32::from(tick > 100),
        stall_starts: u32::from(tick > 100),
        ..PlayerView::default()
    }));
    vec![
        observed(SERVER, "live/s1", now, view(31_000)),
        observed("nginx", "live/s1", now, view(30_000)),
        observed(BEACON, "live/s1", now, players),
    ]
}
