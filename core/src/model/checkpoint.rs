//! What must outlive the daemon: who the live classes are, the minute of each that is not exported yet, and what the
//! platform announced. Decides how a stream of [`Entry`]s folds into the state to resume from; refuses to keep a minute
//! that has left.
//!
//! Every tick tells its entries. Folded in order from nothing, or from [`Checkpoint::entries`], they give the same
//! checkpoint, so that a log of them may be cut down to its newest state at any time.

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

/// A change of what must outlive the daemon. New fields need a default, so that the entries of an older version are
/// read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// All classes are forgotten.
    Forgotten,
    /// The platform announced the class of a stream.
    Announced(StreamKey, Timestamp, Box<Descriptor>),
    /// An announcement was used or taken back.
    Withdrawn(StreamKey),
    /// What is known of a class; replaces what was said before.
    Known(Name, Box<Known>),
    /// How far a class's trace is; replaces what was said before.
    Traced(Name, Box<Traced>),
    /// A sample was cut.
    Sampled(Name, Box<Reading>),
    /// A class is over, its trace whole.
    Gone(Name),
}

/// What is known of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// The stream it was first seen on.
    pub stream: StreamKey,
    /// All its streams.
    pub streams: Vec<StreamKey>,
    /// What the platform told.
    pub descriptor: Descriptor,
    /// When it was first heard of.
    pub first_seen: Timestamp,
    /// Whether the platform has ordered its end.
    #[serde(default)]
    pub ended: bool,
}

/// How far a class's trace is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// Its start, by which its spans are named.
    pub opened_at: Timestamp,
    /// The platform's trace context when it opened.
    #[serde(default)]
    pub trace_parent: Option<TraceParent>,
    /// The vendors' part of that context.
    #[serde(default)]
    pub trace_state: Option<TraceState>,
    /// The publisher's connection when it opened.
    #[serde(default)]
    pub connection_id: Option<Name>,
    /// Whether the spans of its coming up are told.
    #[serde(default)]
    pub up: bool,
    /// Most viewers of any sample.
    #[serde(default)]
    pub most_viewers: Option<u32>,
    /// Interactions, as last told.
    #[serde(default)]
    pub interactions: Option<u64>,
    /// Alerts that hold.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}

/// An alert that holds, as it was told when it began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Which alert.
    pub alert: Alert,
    /// Its onset.
    pub started_at: Timestamp,
    /// When it was told.
    pub at: Timestamp,
    /// Where the fault lay.
    pub cause: Cause,
    /// What spoke for it.
    #[serde(default)]
    pub why: Vec<String>,
    /// What was judged.
    pub value: f64,
    /// What it was held against.
    pub threshold: f64,
    /// Unit of both.
    pub unit: String,
    /// What the value stood on.
    pub size: f64,
    /// Unit of the size.
    pub size_unit: String,
}

/// One class.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Who it is.
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
    /// The classes that live.
    pub classes: BTreeMap<Name, Class>,
    /// What the platform announced and nobody has sent yet.
    pub announced: BTreeMap<StreamKey, (Timestamp, Descriptor)>,
}

impl Checkpoint {
    /// Takes over a change. One that speaks of a class that nobody knows changes nothing.
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

    /// One tick of a class that is live until `gone`, its viewers with a latency over the limit from 20 s to 40 s.
    fn play(pipe: &mut Pipeline, tick: u64, gone: u64) -> Tick {
        if tick.is_multiple_of(4) {
            let view = ServerView {
                publishing: Some(true),
                viewers: Some(vec![(Protocol::Rtmp, 3 + u32::try_from(tick % 50).expect("small"))]),
                ..ServerView::default()
            };
            let fact = if tick < gone { Fact::Server(Box::new(view)) } else { Fact::Gone };
            pipe.observe(observation(tick, fact));
        }
        if tick < gone {
            pipe.observe(observation(tick, path(if (80..160).contains(&tick) { 900 } else { 5 + tick % 13 })));
        }
        pipe.tick(at(tick), &Environment::default())
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
        let (mut pipe, mut checkpoint, mut commands) = (empty(), Checkpoint::default(), Vec::new());
        let class = Descriptor { course_id: Some(name("c9")), ..Descriptor::default() };
        assert!(pipe.registry_mut().register(&name("s1"), StreamKey::parse("live/c1").ok(), class, at(0)));
        for tick in 1..gone + 320 {
            let told = play(&mut pipe, tick, gone);
            commands.extend(told.commands);
            fold(&mut checkpoint, told.entries);
            if kills.contains(&tick) {
                let mut again = Checkpoint::default();
                fold(&mut again, checkpoint.entries().collect());
                assert_eq!(again.classes.keys().collect::<Vec<_>>(), checkpoint.classes.keys().collect::<Vec<_>>());
                pipe = empty();
                pipe.resume(&again, at(tick));
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
        /// Between two cuts only what is not cut yet is lost. Killed at a cut, nothing is.
        #[test]
        fn killed_at_any_cuts_a_class_gives_the_same_spans(cuts in prop::collection::btree_set(1_u64..17, 1..5)) {
            let kills: Vec<u64> = cuts.into_iter().map(|cut| cut * 20).filter(|tick| !(78..=190).contains(tick)).collect();
            prop_assert_eq!(run(&kills, 360), run(&[], 360));
        }

        #[test]
        fn killed_anywhere_a_class_has_each_span_once(kills in prop::collection::btree_set(1_u64..400, 1..8)) {
            let kills: Vec<u64> = kills.into_iter().collect();
            let mut seen = std::collections::BTreeSet::new();
            for command in run(&kills, 360) {
                if let SpanCommand::Export(span) = command {
                    prop_assert!(seen.insert(span.this), "{:?} came twice", span.this);
                }
            }
            let once = |name| seen.iter().filter(|this| this.name == name).count() == 1;
            prop_assert!(once(SpanName::TeachingStart) && once(SpanName::TeachingComplete));
        }
    }

    #[test]
    fn a_class_that_is_not_heard_of_again_ends_when_it_was_last_sampled() {
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
    fn what_is_found_late_goes_on_beside_what_lives() {
        let (mut before, mut checkpoint) = (empty(), Checkpoint::default());
        for tick in 1..=100 {
            fold(&mut checkpoint, play(&mut before, tick, 1_000).entries);
        }
        let mut found_again = empty();
        (4_000..4_050).for_each(|tick| drop(play(&mut found_again, tick, 10_000)));
        assert!(found_again.join(checkpoint.clone(), at(4_050)).is_empty(), "it lives, in a trace of its own");
        let (mut pipe, mut kept) = (empty(), Checkpoint::default());
        pipe.tick(at(4_000), &Environment::default());
        fold(&mut kept, pipe.join(checkpoint.clone(), at(4_001)));
        assert_eq!(kept, checkpoint, "it is kept anew");
        let mut closed = Vec::new();
        for tick in 4_001..4_300 {
            let told = pipe.tick(at(tick), &Environment::default());
            closed.extend(told.batch.closed);
            fold(&mut kept, told.entries);
        }
        let [closed] = closed.as_slice() else {
            panic!("{closed:?}");
        };
        assert_eq!((closed.reason, closed.at), (CloseReason::EndedUnseen, at(100)));
        assert_eq!(kept, Checkpoint::default());
    }

    #[test]
    fn an_alert_that_fired_resolves_after_the_restart() {
        let (mut pipe, mut checkpoint) = (empty(), Checkpoint::default());
        let mut fired = Vec::new();
        for tick in 1..=120 {
            let told = play(&mut pipe, tick, 1_000);
            fired.extend(told.notices);
            fold(&mut checkpoint, told.entries);
        }
        let mut pipe = empty();
        pipe.resume(&checkpoint, at(121));
        let ticks = (121..300).map(|tick| play(&mut pipe, tick, 1_000)).collect::<Vec<_>>();
        let resolved: Vec<_> = ticks.iter().flat_map(|tick| &tick.notices).collect();
        assert_eq!((fired.len(), resolved.len()), (1, 1));
        assert_eq!((resolved[0].state, resolved[0].started_at), (NoticeState::Resolved, fired[0].started_at));
    }
}
