//! What the collector has seen of all classes, held against what a whole trace is.

use std::collections::{BTreeMap, BTreeSet};

use liveqos_testkit::collector::{Collector, Received};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;

type SpanId = Vec<u8>;

/// Samples of one trace, by their instant: the span they belong to and their bytes.
type Samples = BTreeMap<u64, (SpanId, Vec<u8>)>;

/// All that was taken, each span and event once.
#[derive(Default)]
pub(crate) struct Seen {
    /// By trace, then by span.
    pub(crate) traces: BTreeMap<Vec<u8>, BTreeMap<SpanId, Span>>,
    /// Samples as log events: by trace, the instant and the segment they belong to, with their attributes.
    pub(crate) samples: BTreeMap<Vec<u8>, Samples>,
    /// Spans and events that came again, byte for byte the same.
    pub(crate) duplicates: usize,
}

pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) parent: SpanId,
    /// The instants of its sample events.
    pub(crate) samples: Vec<u64>,
    encoded: Vec<u8>,
}

impl Seen {
    /// All that `collector` took. Panics where a span or an event came again with other bytes.
    pub(crate) fn of(collector: &Collector) -> Self {
        let mut seen = Self::default();
        for request in collector.received().iter().filter(|request| request.taken) {
            request.spans().into_iter().for_each(|span| seen.span(span));
            seen.events(request);
        }
        seen
    }

    fn span(&mut self, span: opentelemetry_proto::tonic::trace::v1::Span) {
        let encoded = span.encode_to_vec();
        let samples = span.events.iter().map(|event| event.time_unix_nano).collect();
        let new = Span { name: span.name, parent: span.parent_span_id, samples, encoded };
        let trace = self.traces.entry(span.trace_id).or_default();
        if let Some(old) = trace.get(&span.span_id) {
            assert_eq!(old.encoded, new.encoded, "{} came twice and differs", new.name);
            self.duplicates += 1;
        } else {
            trace.insert(span.span_id, new);
        }
    }

    fn events(&mut self, request: &Received) {
        for log in request.logs().into_iter().filter(|log| log.event_name == "live.qos.sample") {
            let (trace, at) = (log.trace_id.clone(), log.time_unix_nano);
            let new = (log.span_id.clone(), log.encode_to_vec());
            match self.samples.entry(trace).or_default().insert(at, new.clone()) {
                Some(old) => {
                    assert_eq!(old, new, "a sample came twice and differs");
                    self.duplicates += 1;
                }
                None => assert!(log.attributes.iter().any(|pair| is_text(pair, "session.id"))),
            }
        }
    }

    /// How many different spans and samples `collector` was sent and refused. Panics where one of them never came
    /// again.
    pub(crate) fn refused(&self, collector: &Collector) -> usize {
        let (mut spans, mut samples) = (BTreeSet::new(), BTreeSet::new());
        for request in collector.received().iter().filter(|request| !request.taken) {
            spans.extend(request.spans().into_iter().map(|span| (span.trace_id, span.span_id)));
            samples.extend(request.logs().into_iter().map(|log| (log.trace_id, log.time_unix_nano)));
        }
        for (trace, span) in &spans {
            assert!(self.traces[trace].contains_key(span), "a span was on disk and is lost");
        }
        for (trace, at) in &samples {
            assert!(self.samples[trace].contains_key(at), "a sample was on disk and is lost");
        }
        spans.len() + samples.len()
    }

    /// How many spans of this name all traces have.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.traces.values().flat_map(BTreeMap::values).filter(|span| span.name == name).count()
    }

    /// Panics where a trace is not whole: one root, one end, no span whose parent is missing, every sample that was
    /// exported in exactly one minute, and no other there. Returns the number of samples.
    pub(crate) fn all_whole(&self) -> usize {
        let mut samples = 0;
        for (trace, spans) in &self.traces {
            for name in ["live.teaching.start", "live.teaching.complete", "live.stream.end"] {
                let count = spans.values().filter(|span| span.name == name).count();
                assert_eq!(count, 1, "{name} in trace {}", liveqos_core::base::hex::encode(trace));
            }
            for span in spans.values().filter(|span| !span.parent.is_empty()) {
                assert!(spans.contains_key(&span.parent), "{} hangs on nothing", span.name);
            }
            let mut in_minutes = BTreeMap::new();
            for (id, span) in spans.iter().filter(|(_, span)| span.name == "live.teaching.conduct") {
                for at in &span.samples {
                    assert!(in_minutes.insert(*at, id.clone()).is_none(), "a sample stands in two minutes");
                }
            }
            let exported: BTreeMap<u64, SpanId> =
                self.samples[trace].iter().map(|(at, (segment, _))| (*at, segment.clone())).collect();
            assert_eq!(exported, in_minutes, "trace {}", liveqos_core::base::hex::encode(trace));
            samples += exported.len();
        }
        samples
    }

    /// Cuts of the grid between a class's first and last sample at which it has none, most of any class.
    pub(crate) fn most_missing(&self) -> usize {
        let missing = self.samples.values().map(|samples| {
            let cuts: BTreeSet<u64> = samples.keys().map(|at| at / GRID).collect();
            let (first, last) = (cuts.first().unwrap(), cuts.last().unwrap());
            usize::try_from(last - first + 1).unwrap() - cuts.len()
        });
        missing.max().unwrap_or_default()
    }
}

fn is_text(pair: &KeyValue, key: &str) -> bool {
    let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
    pair.key == key && matches!(value, Some(Value::StringValue(_)))
}

const GRID: u64 = 5_000_000_000;
