//! A journal's entries with any bytes of them changed, each inside of a good record: nothing may panic when they are
//! read and continued, and the output of the resumed classes can be encoded.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use liveqos::otlp::encode;
use liveqos_core::model::{Checkpoint, Descriptor, Entry, Environment, Fact, Name, Objectives, Observation, PathView, Protocol, ServerView, StreamKey, TICK, Timestamp};
use liveqos_core::base::LatencyHistogram;
use liveqos_core::pipeline::{Pipeline, Tick};
use liveqos_core::session::SessionTimeouts;
use liveqos_core::trace::SpanCommand;

/// Entries of a class of half a minute with an alert, as JSON.
fn entries() -> &'static [String] {
    static ENTRIES: OnceLock<Vec<String>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let mut pipe = empty();
        let class = Descriptor { course_id: Name::new("c9").ok(), ..Descriptor::default() };
        let id = Name::new("s1").expect("a good name");
        assert!(pipe.registry_mut().register(&id, StreamKey::parse("live/c1").ok(), class, at(0)));
        let entries = (1..130).flat_map(|tick| play(&mut pipe, tick).entries);
        entries.map(|entry| serde_json::to_string(&entry).expect("an entry is JSON")).collect()
    })
}

fn empty() -> Pipeline {
    Pipeline::new("n", Objectives::default(), SessionTimeouts::default(), 10)
}

fn at(tick: u32) -> Timestamp {
    Timestamp::from_secs(1_000_000) + TICK * tick
}

fn play(pipe: &mut Pipeline, tick: u32) -> Tick {
    let mut latencies = LatencyHistogram::default();
    latencies.record(Duration::from_millis(if tick > 40 { 900 } else { 5 }));
    let path = PathView {
        protocol: Protocol::Rtmp,
        viewers: 1,
        rtt: None,
        latencies,
        segments_sent: Some(1_000),
        segments_lost: Some(1),
        backlog_bytes: 0,
        publisher_rtt: Some(Duration::from_millis(8)),
    };
    let server = ServerView {
        publishing: Some(true),
        viewers: Some(vec![(Protocol::Rtmp, 3)]),
        ..ServerView::default()
    };
    for fact in [Fact::Server(Box::new(server)), Fact::Path(Box::new(path))] {
        let stream = StreamKey::parse("live/c1").expect("a good key");
        pipe.observe(Observation { source: "nginx-rtmp".into(), stream, at: at(tick), fact });
    }
    pipe.tick(at(tick), &Environment::default())
}

/// Another byte, one more, one less, or the rest repeated: by four bytes of the input for each change.
fn change(texts: &mut Vec<Vec<u8>>, change: &[u8; 4]) {
    let [which, how, place, value] = *change;
    let which = (usize::from(which) | usize::from(how >> 3) << 8) % texts.len();
    let text = &mut texts[which];
    let place = if text.is_empty() { 0 } else { usize::from(place) * text.len() / 256 + usize::from(how >> 6) };
    match how & 7 {
        0..=2 => {
            if let Some(byte) = text.get_mut(place) {
                *byte = value;
            }
        }
        3 => text.insert(place.min(text.len()), value),
        4 if place < text.len() => drop(text.remove(place)),
        5 => {
            let again = text.clone();
            texts.push(again);
        }
        6 => text.clear(),
        _ => {
            let digits = usize::from(value % 24);
            text.splice(place.min(text.len())..place.min(text.len()), std::iter::repeat_n(b'9', digits));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut texts: Vec<Vec<u8>> = entries().iter().map(|text| text.clone().into_bytes()).collect();
    let (changes, _) = data.as_chunks::<4>();
    changes.iter().take(64).for_each(|four| change(&mut texts, four));
    let mut checkpoint = Checkpoint::default();
    for entry in texts.iter().filter_map(|text| serde_json::from_slice::<Entry>(text).ok()) {
        checkpoint.apply(entry);
    }
    let mut again = Checkpoint::default();
    checkpoint.entries().for_each(|entry| again.apply(entry));
    assert!(again.classes.keys().eq(checkpoint.classes.keys()), "what is written again has the same classes");
    let mut pipe = empty();
    pipe.resume(&checkpoint, at(130));
    let mut commands = Vec::new();
    for tick in (130..180).chain((180..1_000).step_by(10)) {
        commands.extend(if tick < 170 { play(&mut pipe, tick) } else { pipe.tick(at(tick), &Environment::default()) }.commands);
    }
    commands.extend(pipe.stop());
    for command in &commands {
        match command {
            SpanCommand::Export(span) => drop(encode::encode_span(span, "n", "")),
            SpanCommand::Emit(event) => drop(encode::encode_event(event, "n")),
        }
    }
});
