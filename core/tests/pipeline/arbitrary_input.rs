//! Any words at all: nothing panics, the same words give the same ticks, and every byte is in exactly one window.

use std::time::Duration;

use liveqos_core::model::{
    Environment, Fact, Group, GroupKind, GroupView, Leg, Objectives, Observation, PathView, PlayerView, Protocol,
    ServerView, Timestamp, Total,
};
use liveqos_core::pipeline::{Pipeline, Tick};
use liveqos_core::session::SessionTimeouts;
use proptest::prelude::*;

use crate::stage::{at, described, latencies, said};

/// One step of a script: a word, or a tick (`None`), at so many milliseconds.
type Step = (u64, Option<Observation>);

fn huge() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_000_u64, Just(u64::MAX), any::<u64>()]
}

fn fact() -> impl Strategy<Value = Fact> {
    let server =
        (any::<Option<bool>>(), huge(), any::<u32>(), any::<bool>()).prop_map(|(publishing, value, count, told)| {
            Fact::Server(Box::new(ServerView {
                publishing,
                ingest_bytes: told.then_some(Total { base: value % 3, value }),
                ingest_frames: Some(Total { base: 1, value }),
                egress_bytes: Some(Total { base: 1, value }),
                declared_fps: told.then_some(25.0),
                viewers: told
                    .then(|| vec![(Protocol::Rtmp, count), (Protocol::Hls, count / 2), (Protocol::Hls, count)]),
                started: told.then(|| Timestamp::from_nanos(value)),
                ..ServerView::default()
            }))
        });
    let path = (any::<u32>(), huge(), huge()).prop_map(|(viewers, sent, lost)| {
        Fact::Path(Box::new(PathView {
            protocol: Protocol::Rtmp,
            viewers,
            latencies: latencies(&[sent % 90_000, lost]),
            segments_sent: Some(sent),
            segments_lost: Some(lost),
            rtt: None,
            backlog_bytes: sent,
            publisher_rtt: Some(Duration::from_nanos(lost)),
        }))
    });
    let players = (any::<u32>(), huge(), huge(), any::<bool>()).prop_map(|(viewers, one, two, told)| {
        Fact::Players(Box::new(PlayerView {
            protocol: told.then_some(Protocol::Webrtc),
            viewers,
            exposure: Duration::from_millis(one),
            stalled: Duration::from_millis(two),
            stall_starts: viewers,
            frames: Some(one),
            bytes: Some(two),
            packets_expected: told.then_some(one),
            packets_lost: told.then_some(two),
            latencies: told.then(|| latencies(&[one])),
            first_frames: vec![Duration::from_millis(two); 3],
            requests: told.then_some(one),
            starved_viewers: told.then_some(viewers),
            stutter_viewers: told.then_some((viewers, viewers / 2)),
            present: None,
            messages: told.then(|| latencies(&[two])),
            groups: vec![GroupView {
                group: if one % 7 == 0 { Group::Others(GroupKind::Network) } else { Group::Network(one % 50) },
                groups: viewers,
                exposure: Duration::from_millis(one),
                stalled: Duration::from_millis(two),
                stall_starts: viewers,
            }],
        }))
    });
    let names = (0..3_u8).prop_map(|id| described(&format!("s{id}")));
    prop_oneof![4 => server, 2 => path, 2 => players, 1 => names, 1 => Just(Fact::Gone)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let word = (0..3_u8, 0..2_u8, fact());
    let step = (prop_oneof![9 => 0..120_000_u64, 1 => any::<u64>()], prop::option::of(word));
    let step = step.prop_map(|(millis, word)| {
        let word = word.map(|(stream, source, fact)| {
            said(&format!("source-{source}"), &format!("live/c{stream}"), at(millis), fact)
        });
        (millis, word)
    });
    prop::collection::vec(step, 1..60)
}

fn pipe() -> Pipeline {
    Pipeline::new("edge-7", Objectives::default(), SessionTimeouts::default(), 2)
}

fn play(steps: &[Step]) -> Vec<Tick> {
    let mut pipe = pipe();
    let mut ticks = Vec::new();
    for (millis, word) in steps {
        match word {
            Some(word) => pipe.observe(word.clone()),
            None => ticks.push(pipe.tick(at(*millis), &Environment::default())),
        }
    }
    let commands = pipe.stop();
    ticks.push(Tick { commands, ..Tick::default() });
    ticks
}

proptest! {
    #[test]
    fn any_words_in_any_order_of_time_give_the_same_beats_twice(steps in steps()) {
        let (once, twice) = (play(&steps), play(&steps));
        prop_assert_eq!(format!("{once:?}"), format!("{twice:?}"));
    }

    #[test]
    fn any_words_in_the_order_of_time_give_the_same_beats_twice(mut steps in steps()) {
        steps.sort_by_key(|(millis, _)| *millis);
        let (once, twice) = (play(&steps), play(&steps));
        prop_assert_eq!(format!("{once:?}"), format!("{twice:?}"));
    }

    /// Whatever is polled when, however often the stream is renamed and the class ends: the windows' bytes are the
    /// counter's.
    #[test]
    fn every_byte_is_in_exactly_one_window(
        grows in prop::collection::vec((1_u64..4_000, 0_u64..1_000_000, 0_u32..3), 2..40),
        renames in prop::collection::btree_map(0_usize..40, 0_u8..3, 0..4),
    ) {
        let mut pipe = pipe();
        let (mut millis, mut value, mut told) = (0, 0, None);
        let (mut bytes_in, mut bytes_out) = (0, 0);
        let mut cut = |pipe: &mut Pipeline, millis| {
            for sample in pipe.tick(at(millis), &Environment::default()).batch.samples {
                for leg in sample.legs {
                    let sum = if leg.leg == Leg::Ingest { &mut bytes_in } else { &mut bytes_out };
                    *sum += leg.bytes.unwrap_or(0);
                }
            }
        };
        pipe.observe(said("srs", "live/c1", at(0), described("s0")));
        for (number, (step, grow, viewers)) in grows.into_iter().enumerate() {
            millis += step;
            value += grow;
            let first = *told.get_or_insert(value);
            prop_assert!(first <= value);
            let total = Some(Total { base: 1, value });
            let view = ServerView {
                publishing: Some(true),
                ingest_bytes: total,
                egress_bytes: total,
                viewers: Some(vec![(if number == 0 { Protocol::Rtmp } else { Protocol::Hls }, if number == 0 { 1 } else { viewers })]),
                ..ServerView::default()
            };
            pipe.observe(said("srs", "live/c1", at(millis), Fact::Server(Box::new(view))));
            if let Some(id) = renames.get(&number) {
                pipe.observe(said("srs", "live/c1", at(millis), described(&format!("s{id}"))));
            }
            cut(&mut pipe, millis);
        }
        pipe.observe(said("srs", "live/c1", at(millis + 1), Fact::Gone));
        for later in 0..120 {
            cut(&mut pipe, millis + 250 * later);
        }
        prop_assert_eq!(pipe.registry().sessions().count(), 0, "the class has closed");
        let grown = value - told.unwrap_or(0);
        prop_assert_eq!((bytes_in, bytes_out), (grown, grown));
    }
}
