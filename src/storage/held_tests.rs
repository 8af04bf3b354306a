//! Records held by sampling, on a disk that forgets: a class is decided on once, and exported whole or not at all,
//! whatever fails in between.

use std::sync::Arc;

use liveqos_core::model::{Name, Scenario, Session, StreamKey, Timestamp};
use liveqos_core::trace::{Event, LogEvent, Parent, Span, SpanCommand, SpanName, SpanRef, Value};
use proptest::prelude::*;

use super::journal::Changes;
use super::tests::{ALL, CAPS, Disks, OURS, announced, entry};
use super::writer::*;
use crate::otlp::sampling::{Holding, Sampling, SamplingSettings};
use crate::otlp::{ExportQueue as _, Record, Signal};

/// The number of ticks that a class lives.
const LIFE: u64 = 16;

fn class(number: usize) -> Arc<Session> {
    let id = format!("v{number}");
    Arc::new(Session {
        id: Name::new(&id).expect("a name"),
        stream: StreamKey::parse(&format!("live/{id}")).expect("a key"),
        course_id: None,
        teacher_id: None,
        // The first is exported at once, the others are held.
        scenario: if number == 0 { Scenario::LiveTeaching } else { Scenario::VideoPlayback },
        student_count: None,
        trace_parent: None,
        trace_state: None,
        stream_type: None,
    })
}

fn sampling() -> Sampling {
    let settings = SamplingSettings { video_playback: 0.0, ..SamplingSettings::default() };
    Sampling::new(&settings, "n")
}

/// The commands of all classes at a tick; each stutters at a tick of its own, if at all.
fn commands(tick: u64, faults: &[u64], pad: usize) -> Vec<SpanCommand> {
    let at = Timestamp::from_secs(tick);
    let span = |session: &Arc<Session>, name| {
        SpanCommand::Export(Box::new(Span {
            session: Arc::clone(session),
            this: SpanRef { name, ordinal: tick },
            parent: Parent::Platform,
            start: at,
            end: at,
            error: None,
            attributes: vec![("pad", Value::Text("x".repeat(pad).into()))],
            events: Vec::new(),
        }))
    };
    let of_class = |(number, fault): (usize, &u64)| {
        let session = class(number);
        let attributes = vec![("live.stutter_ratio", Value::Float(if *fault == tick { 0.5 } else { 0.0 }))];
        let sample = SpanCommand::Emit(Box::new(LogEvent {
            session: Arc::clone(&session),
            span: SpanRef { name: SpanName::TeachingConduct, ordinal: 0 },
            event: Event { name: "live.qos.sample", at, attributes },
        }));
        let name = match tick {
            1 => Some(SpanName::TeachingStart),
            LIFE => Some(SpanName::TeachingComplete),
            tick if tick.is_multiple_of(4) => Some(SpanName::TeachingConduct),
            _ => None,
        };
        [Some(sample), name.map(|name| span(&session, name))].into_iter().flatten().collect::<Vec<_>>()
    };
    faults.iter().enumerate().flat_map(of_class).collect()
}

struct Node {
    writer: StateWriter,
    sampling: Sampling,
    tick: u64,
}

impl Node {
    fn start(disks: &Disks) -> Self {
        let (writer, found) = disks.start_on(OURS, CAPS);
        let tick = announced(&found.checkpoint).len() as u64;
        Self { writer, sampling: sampling().resumed(&found.holding, |_| true), tick }
    }

    fn tick(&mut self, faults: &[u64], pad: usize) {
        self.tick += 1;
        let records = self.sampling.take(&commands(self.tick, faults, pad), |_| true);
        for record in records {
            self.writer.spool().append(record);
        }
        let places = self.writer.seal();
        let changes = Changes { entries: vec![entry(self.tick)], sampled: self.sampling.take_changes() };
        self.writer.step(changes, Some(places), true);
    }

    fn left(&self) -> Vec<bytes::Bytes> {
        let mut out = Vec::new();
        for signal in [Signal::Traces, Signal::Logs] {
            loop {
                let batch = self.writer.spool().peek(signal, ALL);
                if batch.messages.is_empty() {
                    break;
                }
                out.extend(batch.messages);
                self.writer.spool().acknowledge(signal, batch.until);
            }
        }
        out
    }
}

/// The records exported where nothing fails.
fn undisturbed(faults: &[u64]) -> Vec<bytes::Bytes> {
    let mut sampling = sampling();
    let records = (1..=LIFE).flat_map(|tick| sampling.take(&commands(tick, faults, 1), |_| true)).collect::<Vec<_>>();
    let of = |signal| records.iter().filter(move |record: &&Record| record.signal == signal);
    of(Signal::Traces).chain(of(Signal::Logs)).map(|record| record.bytes.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The power fails at any operation, again and again, and the records exported in the end are those exported
    /// without any failure, byte for byte, each once.
    #[test]
    fn a_power_cut_anywhere_changes_no_decision(
        faults in prop::collection::vec(0_u64..24, 4),
        cuts in prop::collection::vec((0_u32..30, 0_u32..30, 1_u64..7, any::<u64>()), 1..6),
    ) {
        let disks = Disks::default();
        let mut node = Node::start(&disks);
        for (spool, journal, ticks, seed) in cuts {
            disks.spool.fuse(spool);
            disks.journal.fuse(journal);
            for _ in 0..ticks.min(LIFE - node.tick) {
                node.tick(&faults, 1);
            }
            let mut rng = fastrand::Rng::with_seed(seed);
            disks.power_cut(move || rng.u8(..));
            node = Node::start(&disks);
        }
        while node.tick < LIFE {
            node.tick(&faults, 1);
        }
        prop_assert_eq!(node.left(), undisturbed(&faults));
        drop(node);
        let (_, found) = disks.start_on(OURS, CAPS);
        prop_assert_eq!(found.holding, Holding::default(), "nothing is left of ended classes");
    }

}

/// A start rewrites the journal, in many records where much is held. The power fails in the middle of it.
#[test]
fn an_incomplete_beginning_leaves_the_journal_before_it() {
    let disks = Disks::default();
    let mut node = Node::start(&disks);
    (0..LIFE - 1).for_each(|_| node.tick(&[0; 4], 200_000));
    assert!(node.sampling.holding().bytes() > 2_000_000, "more than fits into one record");
    for fuse in 0..10 {
        disks.journal.fuse(fuse);
        drop(Node::start(&disks));
        let mut rng = fastrand::Rng::with_seed(fuse.into());
        disks.power_cut(move || rng.u8(..));
        let (_, found) = disks.start_on(OURS, CAPS);
        assert_eq!(&found.holding, node.sampling.holding(), "after {fuse} changes");
    }
}

#[test]
fn more_than_fits_into_a_record_is_held() {
    let disks = Disks::default();
    let settings = SamplingSettings { video_playback: 0.0, hold_bytes: 64 << 20, ..SamplingSettings::default() };
    let mut node = Node::start(&disks);
    node.sampling = Sampling::new(&settings, "n").resumed(&Holding::default(), |_| true);
    (0..LIFE - 1).for_each(|_| node.tick(&[0; 4], 2_000_000));
    let (_, found) = disks.start_on(OURS, CAPS);
    assert!(found.holding.bytes() > super::disk::MAX_PAYLOAD);
    assert_eq!(&found.holding, node.sampling.holding());
}

#[test]
fn held_records_of_classes_that_are_not_continued_are_exported() {
    let disks = Disks::default();
    let mut node = Node::start(&disks);
    (0..5).for_each(|_| node.tick(&[0; 4], 1));
    let (_, found) = disks.start_on(OURS, CAPS);
    let mut gone = sampling().resumed(&found.holding, |id| id.as_str() != "v1");
    let changes = gone.take_changes();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(gone.take(&[], |_| true).len(), 7, "five samples, the root, a minute");
    // Found late, while a class of the same id is live again.
    let mut late = sampling().resumed(&Holding::default(), |_| true);
    late.take(&commands(1, &[0, 0], 1), |_| true);
    late.join(&found.holding, |id| id.as_str() != "v2");
    assert_eq!(late.take(&[], |_| true).len(), 14, "of v1, which is live, and of v2, which is unknown");
    let mut kept = Holding::default();
    for change in late.take_changes() {
        kept.apply(change);
    }
    assert_eq!(&kept, late.holding());
    assert_eq!(late.take(&commands(6, &[0, 0, 0, 6], 1), |_| true).len(), 9, "v0 and all of v3");
}
