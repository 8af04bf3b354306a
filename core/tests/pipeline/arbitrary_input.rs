//! Arbitrary observations: nothing panics, the same observations give the same ticks, and every byte is in exactly one
//! window.

use std::time::Duration;

use liveqos_core::model::{
    Environment, Fact, Group, GroupKind, GroupView, Leg, Objectives, Observation, PathView, PlayerView, Protocol,
    ServerView, Timestamp, Total,
};
use liveqos_core::pipeline::{Pipeline, Tick};
use liveqos_core::session::SessionTimeouts;
use proptest::prelude::*;

use crate::stage::{at, described, latencies, observed};

/// One step of a script: an observation, or a tick (`None`), at this many milliseconds.
type Step = (u64, Option<Observation>);

fn huge() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_000_u64, Just(u64::MAX), any::<u64>()]
}

fn fact() -> impl Strategy<Value = Fact> {
    let server =
        (any::<Option<bool>>(), huge(), any::<u32>(), any::<bool>()).prop_map(|(publishing, value, count, known)| {
            Fact::Server(Box::new(ServerView {
                publishing,
                ingest_bytes: known.then_some(Total { base: value % 3, value }),
                ingest_frames: Some(Total { base: 1, value }),
                egress_bytes: Some(Total { base: 1, value }),
                declared_fps: known.then_some(25.0),
                viewers: known
                    .then(|| vec![(Protocol::Rtmp, count), (Protocol::Hls, count / 2), (Protocol::Hls, count)]),
                started: known.then(|| Timestamp::from_nanos(value)),
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
    let players = (any::<u32>(), huge(), huge(), any::<bool>()).prop_map(|(viewers, one, two, known)| {
        Fact::Players(Box::new(PlayerView {
            protocol: known.then_some(Protocol::Webrtc),
            viewers,
            exposure: Duration::from_millis(one),
            stalled: Duration::from_millis(two),
            stall_starts: viewers,
            frames: Some(one),
            bytes: Some(two),
            packets_expected: known.then_some(one),
            packets_lost: known.then_some(two),
            latencies: known.then(|| latencies(&[one])),
            first_frames: vec![Duration::from_millis(two); 3],
            requests: known.then_some(one),
            starved_viewers: known.then_some(viewers),
            stutter_viewers: known.then_some((viewers, viewers / 2)),
            present: None,
            messages: known.then(|| latencies(&[two])),
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
    let observation = (0..3_u8, 0..2_u8, fact());
    let step = (prop_oneof![9 => 0..120_000_u64, 1 => any::<u64>()], prop::option::of(observation));
    let step = step.prop_map(|(millis, observation)| {
        let observation = observation.map(|(stream, source, fact)| {
            observed(&format!("source-{source}"), &format!("live/c{stream}"), at(millis), fact)
        });
        (millis, observation)
    });
    prop::collection::vec(step, 1..60)
}

fn pipeline() -> Pipeline {
    Pipeline::new("edge-7", Objectives::default(), SessionTimeouts::default(), 2)
}

fn play(steps: &[Step]) -> Vec<Tick> {
    let mut pipeline = pipeline();
    let mut ticks = Vec::new();
    for (millis, observation) in steps {
        match observation {
            Some(observation) => pipeline.observe(observation.clone()),
            None => ticks.push(pipeline.tick(at(*millis), &Environment::default())),
        }
    }
    let commands = pipeline.stop();
    ticks.push(Tick { commands, ..Tick::default() });
    ticks
}

proptest! {
    #[test]
    fn any_observations_in_any_order_give_the_same_ticks_twice(steps in steps()) {
        let (once, twice) = (play(&steps), play(&steps));
        prop_assert_eq!(format!("{once:?}"), format!("{twice:?}"));
    }

    #[test]
    fn any_observations_in_order_of_time_give_the_same_ticks_twice(mut steps in steps()) {
        steps.sort_by_key(|(millis, _)| *millis);
        let (once, twice) = (play(&steps), play(&steps));
        prop_assert_eq!(format!("{once:?}"), format!("{twice:?}"));
    }

    /// Whenever it is polled, however often the stream is renamed: the bytes of all windows are those of the counter.
    #[test]
    fn every_byte_is_in_exactly_one_window(
        grows in prop::collection::vec((1_u64..4_000, 0_u64..1_000_000, 0_u32..3), 2..40),
        renames in prop::collection::btree_map(0_usize..40, 0_u8..3, 0..4),
    ) {
        let mut pipeline = pipeline();
        let (mut millis, mut value, mut first_value) = (0, 0, None);
        let (mut bytes_in, mut bytes_out) = (0, 0);
        let mut cut = |pipeline: &mut Pipeline, millis| {
            for sample in pipeline.tick(at(millis), &Environment::default()).batch.samples {
                for leg in sample.legs {
                    let sum = if leg.leg == Leg::Ingest { &mut bytes_in } else { &mut bytes_out };
                    *sum += leg.bytes.unwrap_or(0);
                }
            }
        };
        pipeline.observe(observed("srs", "live/c1", at(0), described("s0")));
        for (number, (step, grow, viewers)) in grows.into_iter().enumerate() {
            millis += step;
            value += grow;
            let first = *first_value.get_or_insert(value);
            prop_assert!(first <= value);
            let total = Some(Total { base: 1, value });
            let view = ServerView {
                publishing: Some(true),
                ingest_bytes: total,
                egress_bytes: total,
                viewers: Some(vec![(if number == 0 { Protocol::Rtmp } else { Protocol::Hls }, if number == 0 { 1 } else { viewers })]),
                ..ServerView::default()
            };
            pipeline.observe(observed("srs", "live/c1", at(millis), Fact::Server(Box::new(view))));
            if let Some(id) = renames.get(&number) {
                pipeline.observe(observed("srs", "live/c1", at(millis), described(&format!("s{id}"))));
            }
            cut(&mut pipeline, millis);
        }
        pipeline.observe(observed("srs", "live/c1", at(millis + 1), Fact::Gone));
        for later in 0..120 {
            cut(&mut pipeline, millis + 250 * later);
        }
        prop_assert_eq!(pipeline.registry().sessions().count(), 0, "the class has closed");
        let grown = value - first_value.unwrap_or(0);
        prop_assert_eq!((bytes_in, bytes_out), (grown, grown));
    }
}
