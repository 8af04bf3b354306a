//! Which classes' traces are exported. Decided at a class's first span by its scenario's share; a class that is not
//! kept is decided again at its first fault or its end, which no head sampler can do. A class is exported whole or not
//! at all.
//!
//! ```text
//! first span ─► within the share ─► exported at once                                   ot=th:<threshold of the share>
//!             └► else held ─┬► first fault ─► the held records and all later ones are exported               ot=th:0
//!                           └► end of the class ─► dropped
//! ```
//!
//! Each decision and all held records are also given as [`Change`]s, so that storage can keep them with the state of
//! the classes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use liveqos_core::model::{Name, Session};
use liveqos_core::trace::{SpanCommand, SpanName, Value};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample as _};

use super::held;
use super::held::{Change, Holding, Kept};
use super::scenario::{ScenarioSampler, with_threshold};
use super::settings::SamplingSettings;
use super::threshold::Threshold;
use crate::otlp::encode;
use crate::otlp::record::{Record, Signal};
use crate::platform::trace_id;

/// The sampler and the state of live classes.
#[derive(Debug)]
pub struct Sampling {
    sampler: ScenarioSampler,
    settings: SamplingSettings,
    node: String,
    holding: Holding,
    /// Changes of the state since the last [`Sampling::take_changes`]; `None` where nothing is kept on disk.
    changes: Option<Vec<Change>>,
    /// Records to export with the next call of [`Sampling::take`].
    released: Vec<Record>,
    counts: Arc<Counts>,
}

/// Classes by decision, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Kept by the share of their scenario.
    pub kept: AtomicU64,
    /// Kept because of a fault.
    pub kept_for_fault: AtomicU64,
    /// Dropped at their end.
    pub left_out: AtomicU64,
    /// Held, and lost their oldest records because too much was held.
    pub cut_short: AtomicU64,
}

impl Counts {
    /// The counts by the `decision` label of `liveqos_sampling_total`.
    #[must_use]
    pub fn read(&self) -> [(&'static str, u64); 4] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("kept", read(&self.kept)),
            ("kept_for_fault", read(&self.kept_for_fault)),
            ("left_out", read(&self.left_out)),
            ("cut_short", read(&self.cut_short)),
        ]
    }
}

impl Sampling {
    /// A sampler without classes; span ids are those of `node`.
    #[must_use]
    pub fn new(settings: &SamplingSettings, node: &str) -> Self {
        Self {
            sampler: ScenarioSampler::new(settings.clone()),
            settings: settings.clone(),
            node: node.to_owned(),
            holding: Holding::default(),
            changes: None,
            released: Vec::new(),
            counts: Arc::default(),
        }
    }

    /// Continues with the state found at the start, and from now on collects changes. The held records of a class that
    /// is not continued (`lives` is false) are exported, because it can no longer be decided on.
    #[must_use]
    pub fn resumed(mut self, found: &Holding, lives: impl Fn(&Name) -> bool) -> Self {
        self.holding = found.clone();
        let mut changes = Vec::new();
        for id in found.names().filter(|id| !lives(id)) {
            self.released.extend(self.holding.apply(Change::Released(id.clone())));
            self.holding.apply(Change::Gone(id.clone()));
            changes.push(Change::Gone(id.clone()));
        }
        self.changes = Some(changes);
        self
    }

    /// Adds the state of classes that could not be read at the start. The held records of a class that was decided on
    /// again meanwhile are exported.
    pub fn join(&mut self, found: &Holding, lives: impl Fn(&Name) -> bool) {
        let mut found = found.clone();
        let known: Vec<Name> =
            found.names().filter(|id| !lives(id) || self.holding.class(id).is_some()).cloned().collect();
        for id in known {
            self.released.extend(found.apply(Change::Released(id.clone())));
            found.apply(Change::Gone(id));
        }
        found.changes().for_each(|change| self.apply(change));
    }

    /// The changes since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The state of all classes.
    #[cfg(test)]
    pub(crate) const fn holding(&self) -> &Holding {
        &self.holding
    }

    /// The counters, which may be read at any time.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// The records of `commands` to export now, and the held records of classes that are kept from now on; only of
    /// `wanted` signals.
    pub fn take(&mut self, commands: &[SpanCommand], wanted: impl Fn(Signal) -> bool) -> Vec<Record> {
        let mut out = std::mem::take(&mut self.released);
        for command in commands {
            let (session, signal) = match command {
                SpanCommand::Export(span) => (&span.session, Signal::Traces),
                SpanCommand::Emit(event) => (&event.session, Signal::Logs),
            };
            let id = &session.id;
            if self.holding.class(id).is_none() {
                let decided = self.decide(session);
                self.apply(decided);
            }
            if self.is_held(id) && self.settings.whole_on_fault && is_fault(command, self.settings.stutter_ratio) {
                out.extend(self.release(id));
                add(&self.counts.kept_for_fault);
            }
            if wanted(signal)
                && let Some(class) = self.holding.class(id)
            {
                let record = encode::record(command, &self.node, &class.state);
                match class.is_held() {
                    false => out.push(record),
                    // Where faults do not count, nothing would ever release it.
                    true if self.settings.whole_on_fault => {
                        self.apply(Change::Held(id.clone(), record));
                        self.trim(id);
                    }
                    true => {}
                }
            }
            if matches!(command, SpanCommand::Export(span) if span.this.name == SpanName::TeachingComplete) {
                if self.is_held(id) {
                    add(&self.counts.left_out);
                }
                self.apply(Change::Gone(id.clone()));
            }
        }
        out
    }

    /// All held records, because the daemon stops and nothing is kept on disk: classes that cannot be decided on are
    /// exported.
    pub fn release_all(&mut self) -> Vec<Record> {
        let held: Vec<Name> = self.holding.names().filter(|id| self.is_held(id)).cloned().collect();
        let mut out = std::mem::take(&mut self.released);
        for id in &held {
            out.extend(self.release(id));
        }
        out
    }

    fn is_held(&self, id: &Name) -> bool {
        self.holding.class(id).is_some_and(held::Class::is_held)
    }

    /// Applies a change and collects it.
    fn apply(&mut self, change: Change) {
        self.collect(&change);
        self.holding.apply(change);
    }

    fn release(&mut self, id: &Name) -> VecDeque<Record> {
        let released = Change::Released(id.clone());
        self.collect(&released);
        self.holding.apply(released)
    }

    fn collect(&mut self, change: &Change) {
        if let Some(changes) = &mut self.changes {
            changes.push(change.clone());
        }
    }

    fn decide(&self, session: &Session) -> Change {
        let trace_id = TraceId::from_bytes(trace_id::trace_id(session));
        let parent = session.trace_parent.map(|parent| {
            let flags = TraceFlags::new(parent.flags);
            let span_id = SpanId::from_bytes(parent.parent_id);
            let parent = SpanContext::new(trace_id, span_id, flags, true, platform_state(session));
            Context::new().with_remote_span_context(parent)
        });
        let scenario = [KeyValue::new("education.scenario", session.scenario.as_str())];
        let name = SpanName::TeachingStart.as_str();
        let head = self.sampler.should_sample(parent.as_ref(), trace_id, name, &SpanKind::Internal, &scenario, &[]);
        if head.decision == SamplingDecision::RecordAndSample {
            add(&self.counts.kept);
            return Change::Decided(session.id.clone(), head.trace_state.header(), Kept::Yes);
        }
        // A held class is exported only after a fault, and every class with one is: each counts for itself alone.
        let state = with_threshold(&platform_state(session), Threshold::KEEP_ALL).header();
        Change::Decided(session.id.clone(), state, Kept::NotYet)
    }

    /// Drops the oldest held records of a class where too much is held.
    fn trim(&mut self, id: &Name) {
        let too_many = self.holding.bytes().saturating_sub(self.settings.hold_bytes);
        let Some(class) = self.holding.class(id).filter(|_| too_many > 0) else {
            return;
        };
        if !class.is_cut_short() {
            add(&self.counts.cut_short);
        }
        let oldest = class.oldest(too_many);
        self.apply(Change::Trimmed(id.clone(), oldest));
    }
}

/// Whether a command shows a fault: an incident, an error, a sample with stutter.
fn is_fault(command: &SpanCommand, stutter_ratio: f64) -> bool {
    match command {
        SpanCommand::Export(span) => span.error.is_some(),
        SpanCommand::Emit(log) => {
            let stuttered = |(key, value): &(&'static str, Value)| {
                *key == "live.stutter_ratio" && matches!(value, Value::Float(ratio) if *ratio >= stutter_ratio)
            };
            log.span.name == SpanName::QosIncident || log.event.attributes.iter().any(stuttered)
        }
    }
}

/// The trace state that the platform gave the session.
fn platform_state(session: &Session) -> TraceState {
    session.trace_state.as_ref().and_then(|state| state.as_str().parse().ok()).unwrap_or_default()
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use liveqos_core::model::{Scenario, StreamKey, Timestamp};
    use liveqos_core::trace::{Event, LogEvent, Parent, Span, SpanRef};
    use opentelemetry_proto::tonic::trace::v1 as proto;
    use prost::Message as _;

    use super::*;

    fn class(id: &str, scenario: Scenario) -> Arc<Session> {
        Arc::new(Session {
            id: Name::new(id).expect("a name"),
            stream: StreamKey::parse(&format!("live/{id}")).expect("a key"),
            course_id: None,
            teacher_id: None,
            scenario,
            student_count: None,
            trace_parent: None,
            trace_state: None,
            stream_type: None,
        })
    }

    fn span(session: &Arc<Session>, name: SpanName, error: bool) -> SpanCommand {
        SpanCommand::Export(Box::new(Span {
            session: Arc::clone(session),
            this: SpanRef { name, ordinal: 0 },
            parent: Parent::Platform,
            start: Timestamp::from_secs(1),
            end: Timestamp::from_secs(1) + Duration::from_secs(1),
            error: error.then(|| "stutter".into()),
            attributes: Vec::new(),
            events: Vec::new(),
        }))
    }

    fn sample(session: &Arc<Session>, stutter: f64) -> SpanCommand {
        let attributes = vec![("live.stutter_ratio", Value::Float(stutter))];
        SpanCommand::Emit(Box::new(LogEvent {
            session: Arc::clone(session),
            span: SpanRef { name: SpanName::TeachingConduct, ordinal: 0 },
            event: Event { name: "live.qos.sample", at: Timestamp::from_secs(5), attributes },
        }))
    }

    fn sampling() -> Sampling {
        Sampling::new(&SamplingSettings::default(), "n")
    }

    fn all(_: Signal) -> bool {
        true
    }

    fn counts(sampling: &Sampling) -> [u64; 4] {
        sampling.counts().read().map(|(_, count)| count)
    }

    /// A class whose trace id is within a share of 5 %, or not.
    fn video(within: bool) -> Arc<Session> {
        let threshold = Threshold::of_share(0.05).expect("some");
        let within_share = |session: &Arc<Session>| {
            let id = u128::from_be_bytes(trace_id::trace_id(session));
            threshold.keeps(super::super::threshold::Randomness::of_trace(id)) == within
        };
        let classes = (0..10_000).map(|number| class(&format!("v{number}"), Scenario::VideoPlayback));
        classes.into_iter().find(within_share).expect("one of many")
    }

    #[test]
    fn live_classes_are_exported_at_once() {
        let (mut sampling, session) = (sampling(), class("c1", Scenario::LiveTeaching));
        let commands = [span(&session, SpanName::TeachingStart, false), sample(&session, 0.0)];
        assert_eq!(sampling.take(&commands, all).len(), 2);
        assert_eq!(
            sampling.take(&commands, |signal| signal == Signal::Logs).len(),
            1,
            "an unwanted signal is not encoded"
        );
        assert_eq!(counts(&sampling), [1, 0, 0, 0]);
    }

    #[test]
    fn a_faultless_video_outside_the_share_is_dropped_whole() {
        let (mut sampling, session) = (sampling(), video(false));
        for command in [
            span(&session, SpanName::TeachingStart, false),
            sample(&session, 0.009),
            span(&session, SpanName::TeachingComplete, false),
        ] {
            assert_eq!(sampling.take(&[command], all), []);
        }
        assert_eq!(counts(&sampling), [0, 0, 1, 0]);
        assert_eq!(sampling.holding, Holding::default());
    }

    #[test]
    fn a_video_within_the_share_is_exported_at_once() {
        let (mut sampling, session) = (sampling(), video(true));
        let out = sampling.take(&[span(&session, SpanName::TeachingStart, false)], all);
        let root = proto::Span::decode(out[0].bytes.clone()).expect("a span");
        assert_eq!(root.trace_state, "ot=th:f3333");
    }

    #[test]
    fn a_fault_releases_everything_held_of_a_class() {
        let session = video(false);
        let faults = [sample(&session, 0.02), span(&session, SpanName::QosIncident, true)];
        for fault in faults {
            let mut sampling = sampling();
            let before = [span(&session, SpanName::TeachingStart, false), sample(&session, 0.0)];
            assert_eq!(sampling.take(&before, all), []);
            let out = sampling.take(&[fault], all);
            assert_eq!((out.len(), sampling.holding.bytes()), (3, 0), "the held records and the fault");
            let root = proto::Span::decode(out[0].bytes.clone()).expect("a span");
            assert_eq!((root.name.as_str(), root.trace_state.as_str()), ("live.teaching.start", "ot=th:0"));
            let end = sampling.take(&[sample(&session, 0.0), span(&session, SpanName::TeachingComplete, false)], all);
            assert_eq!((end.len(), counts(&sampling)), (2, [0, 1, 0, 0]));
        }
    }

    #[test]
    fn held_records_are_bounded_and_losses_counted() {
        let settings = SamplingSettings { hold_bytes: 500, ..SamplingSettings::default() };
        let (mut sampling, session) = (Sampling::new(&settings, "n"), video(false));
        for _ in 0..50 {
            assert_eq!(sampling.take(&[sample(&session, 0.0)], all), []);
            assert!(sampling.holding.bytes() <= 500);
        }
        assert_eq!(counts(&sampling), [0, 0, 0, 1]);
        let kept = sampling.take(&[sample(&session, 1.0)], all).len();
        assert!((2..8).contains(&kept), "the newest are held: {kept}");
    }

    #[test]
    fn a_stop_releases_undecided_classes_and_faults_can_be_ignored() {
        let session = video(false);
        let mut sampling = sampling();
        assert_eq!(sampling.take(&[sample(&session, 0.0)], all), []);
        assert_eq!((sampling.release_all().len(), sampling.holding.bytes()), (1, 0));
        let plain = SamplingSettings { whole_on_fault: false, ..SamplingSettings::default() };
        let mut sampling = Sampling::new(&plain, "n");
        assert_eq!(sampling.take(&[sample(&session, 1.0), sample(&session, 0.0)], all), []);
        assert_eq!(sampling.holding.bytes(), 0);
    }
}
