//! What must outlive the daemon: the live classes, their minutes that are not exported yet, and the platform's
//! announcements. Decides how a stream of [`Entry`]s folds into the state to resume from; a minute that was exported is
//! not kept.
//!
//! Every tick gives its entries. Folded in order from nothing, or from [`Checkpoint::entries`], they give the same
//! checkpoint, so a log of them may be compacted to its newest state at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::descriptor::Descriptor;
use super::notice::{Alert, Cause, Evidence, Notice, NoticeState, Subject};
use super::reading::{Reading, minute_of};
use super::session::{Name, Session, StreamKey};
use super::time::Timestamp;
use super::trace_parent::TraceParent;
use super::trace_state::TraceState;

/// A change of what must outlive the daemon. New fields need a default, so that entries of an older version are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// All classes were forgotten.
    Forgotten,
    /// The platform announced the class of a stream.
    Announced(StreamKey, Timestamp, Box<Descriptor>),
    /// An announcement was used or withdrawn.
    Withdrawn(StreamKey),
    /// The identity of a class; replaces the earlier one.
    Known(Name, Box<Known>),
    /// The state of a class's trace; replaces the earlier one.
    Traced(Name, Box<Traced>),
    /// A sample was cut.
    Sampled(Name, Box<Reading>),
    /// A class is over and its trace complete.
    Gone(Name),
}

/// The identity of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// The stream it was first seen on.
    pub stream: StreamKey,
    /// All its streams.
    pub streams: Vec<StreamKey>,
    /// What the platform reported.
    pub descriptor: Descriptor,
    /// When it was first reported.
    pub first_seen: Timestamp,
    /// Whether the platform ended it.
    #[serde(default)]
    pub ended: bool,
}

/// The state of a class's trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// Its start, from which its span ids are derived.
    pub opened_at: Timestamp,
    /// The platform's trace context when it opened.
    #[serde(default)]
    pub trace_parent: Option<TraceParent>,
    /// The `tracestate` of that context.
    #[serde(default)]
    pub trace_state: Option<TraceState>,
    /// The publisher's connection when it opened.
    #[serde(default)]
    pub connection_id: Option<Name>,
    /// Whether the spans of its start were exported.
    #[serde(default)]
    pub up: bool,
    /// Most viewers of any sample.
    #[serde(default)]
    pub most_viewers: Option<u32>,
    /// Interactions, as last reported.
    #[serde(default)]
    pub interactions: Option<u64>,
    /// Alerts that are firing.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}

/// A firing alert, as of its first notice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Which alert.
    pub alert: Alert,
    /// Its onset.
    pub started_at: Timestamp,
    /// When the notice was sent.
    pub at: Timestamp,
    /// Where the fault lay.
    pub cause: Cause,
    /// The evidence for the cause.
    #[serde(default)]
    pub why: Vec<String>,
    /// The value that was judged.
    pub value: f64,
    /// The threshold it was compared with.
    pub threshold: f64,
    /// Unit of both.
    pub unit: String,
    /// Size of the evidence.
    pub size: f64,
    /// Unit of the size.
    pub size_unit: String,
}

/// One class.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its identity.
    pub known: Known,
    /// Its trace, once it opened.
    pub traced: Option<Traced>,
    /// The samples of its newest minute.
    pub minute: Vec<Reading>,
    /// When it was last sampled.
    pub last_sampled: Option<Timestamp>,
}

/// All that must outlive the daemon, as of one tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The live classes.
    pub classes: BTreeMap<Name, Class>,
    /// Announced classes that no source has reported yet.
    pub announced: BTreeMap<StreamKey, (Timestamp, Descriptor)>,
}

impl Checkpoint {
    /// Applies a change. One about an unknown class changes nothing.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Forgotten => self.classes.clear(),
            Entry::Announced(stream, at, descriptor) => {
                self.announced.insert(stream, (at, *descriptor));
            }
            Entry::Withdrawn(stream) => {
                self.announced.remove(&stream);
            }
            Entry::Known(id, known) => {
                let class = self.classes.remove(&id);
                let (traced, minute, last_sampled) =
                    class.map_or_else(Default::default, |class| (class.traced, class.minute, class.last_sampled));
                self.classes.insert(id, Class { known: *known, traced, minute, last_sampled });
            }
            Entry::Traced(id, traced) => {
                if let Some(class) = self.classes.get_mut(&id) {
                    class.traced = Some(*traced);
                }
            }
            Entry::Sampled(id, reading) => {
                if let Some(class) = self.classes.get_mut(&id) {
                    class.sampled(*reading);
                }
            }
            Entry::Gone(id) => {
                self.classes.remove(&id);
            }
        }
    }

    /// The entries that give this checkpoint from nothing.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let announced = self
            .announced
            .iter()
            .map(|(stream, (at, descriptor))| Entry::Announced(stream.clone(), *at, Box::new(descriptor.clone())));
        announced.chain(self.classes.iter().flat_map(|(id, class)| {
            let known = Entry::Known(id.clone(), Box::new(class.known.clone()));
            let traced = class.traced.clone().map(|traced| Entry::Traced(id.clone(), Box::new(traced)));
            let minute = class.minute.iter().map(|reading| Entry::Sampled(id.clone(), Box::new(*reading)));
            [known].into_iter().chain(traced).chain(minute)
        }))
    }

    /// When any class was last sampled.
    #[must_use]
    pub fn last_cut(&self) -> Option<Timestamp> {
        self.classes.values().filter_map(|class| class.last_sampled).max()
    }
}

impl Class {
    fn sampled(&mut self, reading: Reading) {
        let minute = minute_of(reading.window);
        if self.minute.last().is_some_and(|last| minute_of(last.window) != minute) {
            self.minute.clear();
        }
        self.last_sampled = Some(reading.window.end);
        if let Some(traced) = &mut self.traced {
            traced.most_viewers = traced.most_viewers.max(reading.figures.viewers.map(|viewers| viewers.value));
            traced.interactions = reading.interactions.or(traced.interactions);
        }
        self.minute.push(reading);
    }
}

impl Incident {
    /// The incident that `notice` began.
    #[must_use]
    pub fn of(notice: &Notice) -> Self {
        let evidence = notice.evidence;
        Self {
            alert: notice.alert,
            started_at: notice.started_at,
            at: notice.at,
            cause: notice.cause,
            why: notice.why.to_vec(),
            value: evidence.value,
            threshold: evidence.threshold,
            unit: evidence.unit.to_owned(),
            size: evidence.size,
            size_unit: evidence.size_unit.to_owned(),
        }
    }

    /// The notice that began it.
    #[must_use]
    pub fn notice(&self, session: &Arc<Session>) -> Notice {
        Notice {
            alert: self.alert,
            subject: Subject::Session(Arc::clone(session)),
            state: NoticeState::Firing,
            started_at: self.started_at,
            at: self.at,
            evidence: self.evidence(),
            cause: self.cause,
            why: self.why.iter().cloned().collect(),
            forecast: None,
            renotified: false,
        }
    }

    /// The numbers; a unit that this version does not know is left empty.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let known = |text: &str| UNITS.into_iter().find(|unit| *unit == text).unwrap_or_default();
        Evidence {
            value: self.value,
            threshold: self.threshold,
            unit: known(&self.unit),
            size: self.size,
            size_unit: known(&self.size_unit),
        }
    }
}

/// The units of evidence.
const UNITS: [&str; 8] =
    ["ratio", "seconds", "frames a second", "viewer-seconds", "viewers", "packets", "publisher", "node"];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::base::LatencyHistogram;
    use crate::model::environment::Environment;
    use crate::model::objectives::Objectives;
    use crate::model::observation::{Fact, Observation, PathView, ServerView};
    use crate::model::sample::CloseReason;
    use crate::model::session::Protocol;
    use crate::model::time::TICK;
    use crate::pipeline::{Pipeline, Tick};
    use crate::session::SessionTimeouts;
    use crate::trace::{SpanCommand, SpanName};

    fn at(tick: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000) + TICK * u32::try_from(tick).expect("few ticks")
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a good name")
    }

    fn observation(tick: u64, fact: Fact) -> Observation {
        let stream = StreamKey::parse("live/c1").expect("a good key");
        Observation { source: "nginx-rtmp".into(), stream, at: at(tick), fact }
    }

    fn path(millis: u64) -> Fact {
        let mut latencies = LatencyHistogram::default();
        latencies.record(Duration::from_millis(millis));
        Fact::Path(Box::new(PathView {
            protocol: Protocol::Rtmp,
            viewers: 1,
            rtt: None,
            latencies,
            segments_sent: Some(1_000),
            segments_lost: Some(1),
            backlog_bytes: 0,
            publisher_rtt: Some(Duration::from_millis(8)),
        }))
    }

    /// One tick of a class that is live until `gone`, with latency over the limit from 20 s to 40 s.
    fn play(pipeline: &mut Pipeline, tick: u64, gone: u64) -> Tick {
        if tick.is_multiple_of(4) {
            let view = ServerView {
                publishing: Some(true),
                viewers: Some(vec![(Protocol::Rtmp, 3 + u32::try_from(tick % 50).expect("small"))]),
                ..ServerView::default()
            };
            let fact = if tick < gone { Fact::Server(Box::new(view)) } else { Fact::Gone };
            pipeline.observe(observation(tick, fact));
        }
        if tick < gone {
            pipeline.observe(observation(tick, path(if (80..160).contains(&tick) { 900 } else { 5 + tick % 13 })));
        }
        pipeline.tick(at(tick), &Environment::default())
    }

    fn fold(checkpoint: &mut Checkpoint, entries: Vec<Entry>) {
        for entry in entries {
            let text = serde_json::to_string(&entry).expect("an entry is JSON");
            let read: Entry = serde_json::from_str(&text).expect("and reads back");
            assert_eq!(read, entry);
            checkpoint.apply(read);
        }
    }

    fn empty() -> Pipeline {
        Pipeline::new("n", Objectives::default(), SessionTimeouts::default(), 10)
    }

    /// All spans and events of a class of 90 s, the daemon killed after each of these ticks and resumed at once.
    fn run(kills: &[u64], gone: u64) -> Vec<SpanCommand> {
        let (mut pipeline, mut checkpoint, mut commands) = (empty(), Checkpoint::default(), Vec::new());
        let class = Descriptor { course_id: Some(name("c9")), ..Descriptor::default() };
        assert!(pipeline.registry_mut().register(&name("s1"), StreamKey::parse("live/c1").ok(), class, at(0)));
        for tick in 1..gone + 320 {
            let ticked = play(&mut pipeline, tick, gone);
            commands.extend(ticked.commands);
            fold(&mut checkpoint, ticked.entries);
            if kills.contains(&tick) {
                let mut again = Checkpoint::default();
                fold(&mut again, checkpoint.entries().collect());
                assert_eq!(again.classes.keys().collect::<Vec<_>>(), checkpoint.classes.keys().collect::<Vec<_>>());
                pipeline = empty();
                pipeline.resume(&again, at(tick));
            }
        }
        assert_eq!(checkpoint, Checkpoint::default(), "nothing is left of a class that is over");
        commands
    }

    #[test]
    fn a_class_of_ninety_seconds_has_all_its_spans() {
        let commands = run(&[], 360);
        let count = |name: SpanName| {
            let spans = commands.iter().filter_map(|command| match command {
                SpanCommand::Export(span) => Some(span.this.name),
                SpanCommand::Emit(_) => None,
            });
            spans.filter(|this| *this == name).count()
        };
        assert_eq!((count(SpanName::TeachingStart), count(SpanName::TeachingComplete)), (1, 1));
        assert!(count(SpanName::TeachingConduct) >= 2 && count(SpanName::QosIncident) == 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Killed between two cuts, only the uncut part is lost; killed at a cut, nothing is.
        #[test]
        fn a_class_whose_daemon_is_killed_at_cuts_gives_the_same_spans(cuts in prop::collection::btree_set(1_u64..17, 1..5)) {
            let kills: Vec<u64> = cuts.into_iter().map(|cut| cut * 20).filter(|tick| !(78..=190).contains(tick)).collect();
            prop_assert_eq!(run(&kills, 360), run(&[], 360));
        }

        #[test]
        fn a_class_whose_daemon_is_killed_anywhere_has_each_span_once(kills in prop::collection::btree_set(1_u64..400, 1..8)) {
            let kills: Vec<u64> = kills.into_iter().collect();
            let mut seen = std::collections::BTreeSet::new();
            for command in run(&kills, 360) {
                if let SpanCommand::Export(span) = command {
                    prop_assert!(seen.insert(span.this), "{:?} was exported twice", span.this);
                }
            }
            let once = |name| seen.iter().filter(|this| this.name == name).count() == 1;
            prop_assert!(once(SpanName::TeachingStart) && once(SpanName::TeachingComplete));
        }
    }

    #[test]
    fn a_class_that_is_not_seen_again_ends_when_it_was_last_sampled() {
        let (mut before, mut checkpoint) = (empty(), Checkpoint::default());
        for tick in 1..=100 {
            fold(&mut checkpoint, play(&mut before, tick, 1_000).entries);
        }
        let mut after = empty();
        after.resume(&checkpoint, at(4_000));
        let closed: Vec<_> =
            (4_000..4_300).flat_map(|tick| after.tick(at(tick), &Environment::default()).batch.closed).collect();
        let [closed] = closed.as_slice() else {
            panic!("{closed:?}");
        };
        assert_eq!((closed.reason, closed.at), (CloseReason::EndedUnseen, at(100)));
    }

    #[test]
    fn a_late_checkpoint_continues_beside_live_classes() {
        let (mut before, mut checkpoint) = (empty(), Checkpoint::default());
        for tick in 1..=100 {
            fold(&mut checkpoint, play(&mut before, tick, 1_000).entries);
        }
        let mut found_again = empty();
        (4_000..4_050).for_each(|tick| drop(play(&mut found_again, tick, 10_000)));
        assert!(found_again.join(checkpoint.clone(), at(4_050)).is_empty(), "it lives, in a trace of its own");
        let (mut pipeline, mut kept) = (empty(), Checkpoint::default());
        pipeline.tick(at(4_000), &Environment::default());
        fold(&mut kept, pipeline.join(checkpoint.clone(), at(4_001)));
        assert_eq!(kept, checkpoint, "it is kept anew");
        let mut closed = Vec::new();
        for tick in 4_001..4_300 {
            let ticked = pipeline.tick(at(tick), &Environment::default());
            closed.extend(ticked.batch.closed);
            fold(&mut kept, ticked.entries);
        }
        let [closed] = closed.as_slice() else {
            panic!("{closed:?}");
        };
        assert_eq!((closed.reason, closed.at), (CloseReason::EndedUnseen, at(100)));
        assert_eq!(kept, Checkpoint::default());
    }

    #[test]
    fn an_alert_that_fired_resolves_after_the_restart() {
        let (mut pipeline, mut checkpoint) = (empty(), Checkpoint::default());
        let mut fired = Vec::new();
        for tick in 1..=120 {
            let ticked = play(&mut pipeline, tick, 1_000);
            fired.extend(ticked.notices);
            fold(&mut checkpoint, ticked.entries);
        }
        let mut pipeline = empty();
        pipeline.resume(&checkpoint, at(121));
        let ticks = (121..300).map(|tick| play(&mut pipeline, tick, 1_000)).collect::<Vec<_>>();
        let resolved: Vec<_> = ticks.iter().flat_map(|tick| &tick.notices).collect();
        assert_eq!((fired.len(), resolved.len()), (1, 1));
        assert_eq!((resolved[0].state, resolved[0].started_at), (NoticeState::Resolved, fired[0].started_at));
    }
}
