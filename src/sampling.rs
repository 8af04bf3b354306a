//! Which classes' traces leave the node. Decides at a class's first span by its scenario's share, and for those left out again at their
//! first fault or their end, which no head sampler can; refuses to export half of a class that it keeps.
//!
//! ```text
//! first span ─► share keeps it ─────────────────────────► leaves as it comes          ot=th:<threshold of the share>
//!             └► else it is held ─┬► first fault ─► all that is held leaves, the rest as it comes          ot=th:0
//!                                 └► end of class ─► forgotten
//! ```

pub mod scenario;
pub mod settings;
pub mod threshold;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use liveqos_core::session::{Name, Session};
use liveqos_core::span::{SpanCommand, SpanName, Value};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample as _};

use self::scenario::{ScenarioSampler, with_threshold};
use self::settings::SamplingSettings;
use self::threshold::Threshold;
use crate::otlp::record::{Record, Signal};
use crate::otlp::{ids, spans};

/// The classes that live and where they stand.
#[derive(Debug)]
pub struct Sampling {
    sampler: ScenarioSampler,
    settings: SamplingSettings,
    node: String,
    classes: BTreeMap<Name, Class>,
    held_bytes: usize,
    counts: Arc<Counts>,
}

/// Classes by what was decided, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Kept by their share.
    pub kept: AtomicU64,
    /// Kept because of a fault.
    pub kept_for_fault: AtomicU64,
    /// Left out at their end.
    pub left_out: AtomicU64,
    /// Held, and lost their oldest because too much was held.
    pub cut_short: AtomicU64,
}

impl Counts {
    /// Each decision by its name, for `liveqos_sampling_total`.
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

#[derive(Debug)]
struct Class {
    /// The trace state of all its spans.
    state: String,
    /// What waits for a decision; `None` once it is kept.
    held: Option<VecDeque<Record>>,
    cut_short: bool,
}

impl Sampling {
    /// Without any class yet; span ids are taken in the name of `node`.
    #[must_use]
    pub fn new(settings: &SamplingSettings, node: &str) -> Self {
        Self {
            sampler: ScenarioSampler::new(settings.clone()),
            settings: settings.clone(),
            node: node.to_owned(),
            classes: BTreeMap::new(),
            held_bytes: 0,
            counts: Arc::default(),
        }
    }

    /// The counters, to keep and read at any time.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// The records of `commands` that leave now, and what was held of classes that now are kept; only of `wanted` signals.
    pub fn take(&mut self, commands: &[SpanCommand], wanted: impl Fn(Signal) -> bool) -> Vec<Record> {
        let mut out = Vec::with_capacity(commands.len());
        for command in commands {
            let (session, signal) = match command {
                SpanCommand::Export(span) => (&span.session, Signal::Traces),
                SpanCommand::Emit(event) => (&event.session, Signal::Logs),
            };
            if !self.classes.contains_key(&session.id) {
                let class = self.first_seen(session);
                self.classes.insert(session.id.clone(), class);
            }
            let Some(class) = self.classes.get_mut(&session.id) else {
                continue;
            };
            if self.settings.whole_on_fault
                && is_fault(command, self.settings.stutter_ratio)
                && let Some(held) = class.held.take()
            {
                self.held_bytes -= held.iter().map(|record| record.bytes.len()).sum::<usize>();
                out.extend(held);
                add(&self.counts.kept_for_fault);
            }
            if wanted(signal) {
                let record = spans::record(command, &self.node, &class.state);
                match &mut class.held {
                    None => out.push(record),
                    Some(held) => {
                        self.held_bytes += record.bytes.len();
                        held.push_back(record);
                    }
                }
            }
            self.trim(&session.id);
            if matches!(command, SpanCommand::Export(span) if span.this.name == SpanName::TeachingComplete) {
                self.forget(&session.id);
            }
        }
        out
    }

    /// All that is held, because the daemon stops: what it cannot judge to the end it keeps.
    pub fn release(&mut self) -> Vec<Record> {
        self.held_bytes = 0;
        self.classes.values_mut().filter_map(|class| class.held.take()).flatten().collect()
    }

    fn first_seen(&self, session: &Session) -> Class {
        let trace_id = TraceId::from_bytes(ids::trace_id(session));
        let parent = session.trace_parent.map(|parent| {
            let flags = TraceFlags::new(parent.flags);
            let span_id = SpanId::from_bytes(parent.parent_id);
            let parent = SpanContext::new(trace_id, span_id, flags, true, platform_state(session));
            Context::new().with_remote_span_context(parent)
        });
        let scenario = [KeyValue::new("education.scenario", session.scenario.as_str())];
        let name = SpanName::TeachingStart.as_str();
        let head = self.sampler.should_sample(parent.as_ref(), trace_id, name, &SpanKind::Internal, &scenario, &[]);
        let kept = head.decision == SamplingDecision::RecordAndSample;
        if kept {
            add(&self.counts.kept);
            return Class { state: head.trace_state.header(), held: None, cut_short: false };
        }
        // What is held leaves only after a fault, and all classes with one are kept: each stands for itself alone.
        let state = with_threshold(&platform_state(session), Threshold::KEEP_ALL).header();
        Class { state, held: Some(VecDeque::new()), cut_short: false }
    }

    /// A class that would hold more than there is room for loses its oldest, all of it where faults do not keep it anyway.
    fn trim(&mut self, id: &Name) {
        let room = if self.settings.whole_on_fault { self.settings.hold_bytes } else { 0 };
        let Some(Class { held: Some(held), cut_short, .. }) = self.classes.get_mut(id) else {
            return;
        };
        while self.held_bytes > room
            && let Some(oldest) = held.pop_front()
        {
            self.held_bytes -= oldest.bytes.len();
            if self.settings.whole_on_fault && !std::mem::replace(cut_short, true) {
                add(&self.counts.cut_short);
            }
        }
    }

    fn forget(&mut self, id: &Name) {
        if let Some(Class { held: Some(held), .. }) = self.classes.remove(id) {
            self.held_bytes -= held.iter().map(|record| record.bytes.len()).sum::<usize>();
            add(&self.counts.left_out);
        }
    }
}

/// Whether a command tells of a fault: an incident, an error, a sample that stuttered.
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

fn platform_state(session: &Session) -> TraceState {
    session.trace_state.as_ref().and_then(|state| state.as_str().parse().ok()).unwrap_or_default()
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use liveqos_core::session::{Scenario, StreamKey};
    use liveqos_core::span::{Event, LogEvent, Parent, Span, SpanRef};
    use liveqos_core::time::Timestamp;
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

    /// A class whose trace id is within, or without, a share of 5 %.
    fn video(within: bool) -> Arc<Session> {
        let threshold = Threshold::of_share(0.05).expect("some");
        let within_share = |session: &Arc<Session>| {
            let id = u128::from_be_bytes(ids::trace_id(session));
            threshold.keeps(threshold::Randomness::of_trace(id)) == within
        };
        let classes = (0..10_000).map(|number| class(&format!("v{number}"), Scenario::VideoPlayback));
        classes.into_iter().find(within_share).expect("one of many")
    }

    #[test]
    fn live_classes_leave_as_they_come() {
        let (mut sampling, session) = (sampling(), class("c1", Scenario::LiveTeaching));
        let commands = [span(&session, SpanName::TeachingStart, false), sample(&session, 0.0)];
        assert_eq!(sampling.take(&commands, all).len(), 2);
        assert_eq!(
            sampling.take(&commands, |signal| signal == Signal::Logs).len(),
            1,
            "a signal nobody wants is not made"
        );
        assert_eq!(counts(&sampling), [1, 0, 0, 0]);
    }

    #[test]
    fn a_clean_video_beyond_the_share_is_left_out_whole() {
        let (mut sampling, session) = (sampling(), video(false));
        for command in [
            span(&session, SpanName::TeachingStart, false),
            sample(&session, 0.009),
            span(&session, SpanName::TeachingComplete, false),
        ] {
            assert_eq!(sampling.take(&[command], all), []);
        }
        assert_eq!((counts(&sampling), sampling.held_bytes), ([0, 0, 1, 0], 0));
        assert!(sampling.classes.is_empty());
    }

    #[test]
    fn a_video_within_the_share_leaves_at_once() {
        let (mut sampling, session) = (sampling(), video(true));
        let out = sampling.take(&[span(&session, SpanName::TeachingStart, false)], all);
        let root = proto::Span::decode(out[0].bytes.clone()).expect("a span");
        assert_eq!(root.trace_state, "ot=th:f3333");
    }

    #[test]
    fn a_fault_brings_back_all_of_a_class() {
        let session = video(false);
        let faults = [sample(&session, 0.02), span(&session, SpanName::QosIncident, true)];
        for fault in faults {
            let mut sampling = sampling();
            let before = [span(&session, SpanName::TeachingStart, false), sample(&session, 0.0)];
            assert_eq!(sampling.take(&before, all), []);
            let out = sampling.take(&[fault], all);
            assert_eq!((out.len(), sampling.held_bytes), (3, 0), "what was held and the fault");
            let root = proto::Span::decode(out[0].bytes.clone()).expect("a span");
            assert_eq!((root.name.as_str(), root.trace_state.as_str()), ("live.teaching.start", "ot=th:0"));
            let end = sampling.take(&[sample(&session, 0.0), span(&session, SpanName::TeachingComplete, false)], all);
            assert_eq!((end.len(), counts(&sampling)), (2, [0, 1, 0, 0]));
        }
    }

    #[test]
    fn what_is_held_is_bounded_and_counted() {
        let settings = SamplingSettings { hold_bytes: 500, ..SamplingSettings::default() };
        let (mut sampling, session) = (Sampling::new(&settings, "n"), video(false));
        for _ in 0..50 {
            assert_eq!(sampling.take(&[sample(&session, 0.0)], all), []);
            assert!(sampling.held_bytes <= 500);
        }
        assert_eq!(counts(&sampling), [0, 0, 0, 1]);
        let kept = sampling.take(&[sample(&session, 1.0)], all).len();
        assert!((2..8).contains(&kept), "the newest are there: {kept}");
    }

    #[test]
    fn a_stop_keeps_what_it_cannot_judge_and_faults_may_count_for_nothing() {
        let session = video(false);
        let mut sampling = sampling();
        assert_eq!(sampling.take(&[sample(&session, 0.0)], all), []);
        assert_eq!((sampling.release().len(), sampling.held_bytes), (1, 0));
        let plain = SamplingSettings { whole_on_fault: false, ..SamplingSettings::default() };
        let mut sampling = Sampling::new(&plain, "n");
        assert_eq!(sampling.take(&[sample(&session, 1.0), sample(&session, 0.0)], all), []);
        assert_eq!(sampling.held_bytes, 0);
    }
}
