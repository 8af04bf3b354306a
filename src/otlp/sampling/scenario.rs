//! The head decision: an OpenTelemetry sampler with a share for each scenario. It depends on the trace id alone,
//! consistently with every other consistent sampler, and keeps every trace that the platform has already sampled.

use liveqos_core::model::Scenario;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

use super::settings::SamplingSettings;
use super::threshold::{Randomness, Threshold};

/// Keeps a share of the traces of each scenario, taken from the attribute `education.scenario`, all traces with
/// `error.type`, and all whose parent is sampled. Writes its threshold to the trace state (`ot=th:…`), so that counts
/// can be extrapolated.
#[derive(Clone, Debug)]
pub(super) struct ScenarioSampler {
    shares: SamplingSettings,
}

impl ScenarioSampler {
    /// A sampler with these shares.
    #[must_use]
    pub(super) const fn new(shares: SamplingSettings) -> Self {
        Self { shares }
    }

    fn share(&self, attributes: &[KeyValue]) -> f64 {
        if attributes.iter().any(|pair| pair.key.as_str() == ERROR) {
            return 1.0;
        }
        let scenario =
            attributes.iter().find(|pair| pair.key.as_str() == SCENARIO).and_then(|pair| match &pair.value {
                Value::String(text) => Scenario::parse(text.as_str()),
                _ => None,
            });
        self.shares.share(scenario)
    }
}

impl ShouldSample for ScenarioSampler {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        _name: &str,
        _span_kind: &SpanKind,
        attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let parent = parent_context.map(|context| context.span().span_context().clone());
        let trace_state = parent.as_ref().map(|parent| parent.trace_state().clone()).unwrap_or_default();
        let result = |decision, trace_state| SamplingResult { decision, attributes: Vec::new(), trace_state };
        if parent.is_some_and(|parent| parent.is_valid() && parent.is_sampled()) {
            return result(SamplingDecision::RecordAndSample, trace_state);
        }
        let explicit = trace_state.get(OTEL).and_then(|list| field(list, RANDOMNESS)).and_then(Randomness::parse);
        let randomness = explicit.unwrap_or_else(|| Randomness::of_trace(u128::from_be_bytes(trace_id.to_bytes())));
        match Threshold::of_share(self.share(attributes)).filter(|threshold| threshold.keeps(randomness)) {
            Some(threshold) => result(SamplingDecision::RecordAndSample, with_threshold(&trace_state, threshold)),
            None => result(SamplingDecision::Drop, trace_state),
        }
    }
}

/// `trace_state` with this threshold; other fields and members are unchanged.
#[must_use]
pub(super) fn with_threshold(trace_state: &TraceState, threshold: Threshold) -> TraceState {
    let others = trace_state.get(OTEL).unwrap_or_default().split(';').filter(|field| {
        let key = field.split(':').next().unwrap_or_default();
        !key.is_empty() && key != THRESHOLD
    });
    let list = std::iter::once(format!("{THRESHOLD}:{threshold}")).chain(others.map(str::to_owned));
    // Cannot fail: the key is valid, and all characters come from a valid trace state.
    trace_state.insert(OTEL, list.collect::<Vec<_>>().join(";")).unwrap_or_else(|_| trace_state.clone())
}

/// The value of `key` in a list of `key:value` separated by `;`.
fn field<'a>(list: &'a str, key: &str) -> Option<&'a str> {
    list.split(';').filter_map(|field| field.split_once(':')).find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// OpenTelemetry's member of the trace state.
const OTEL: &str = "ot";
/// Its fields: rejection threshold, and explicit randomness.
const THRESHOLD: &str = "th";
const RANDOMNESS: &str = "rv";
const SCENARIO: &str = "education.scenario";
/// The attribute of a failed span (semantic conventions).
const ERROR: &str = "error.type";

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};
    use proptest::prelude::*;

    use super::*;

    fn sampled(parent: Option<&Context>, id: u128, attributes: &[KeyValue]) -> SamplingResult {
        let sampler = ScenarioSampler::new(SamplingSettings::default());
        sampler.should_sample(parent, TraceId::from(id), "live.teaching.start", &SpanKind::Internal, attributes, &[])
    }

    fn scenario(name: &'static str) -> [KeyValue; 1] {
        [KeyValue::new("education.scenario", name)]
    }

    fn parent(flags: u8, state: &str) -> Context {
        let state = state.parse().expect("a trace state");
        let flags = TraceFlags::new(flags);
        let parent = SpanContext::new(TraceId::from(7), SpanId::from(7), flags, true, state);
        Context::new().with_remote_span_context(parent)
    }

    /// The highest randomness that a share of 5 % does not keep.
    const JUST_OUT: u128 = 0xf3_332f_ffff_ffff;

    #[test]
    fn each_scenario_has_its_share() {
        for (name, state) in [
            ("live_teaching", "ot=th:0"),
            ("exam", "ot=th:0"),
            ("homework_submit", "ot=th:0"),
            ("learning_behavior", "ot=th:e666"),
        ] {
            let result = sampled(None, JUST_OUT, &scenario(name));
            assert_eq!(
                (result.decision, result.trace_state.header().as_str()),
                (SamplingDecision::RecordAndSample, state)
            );
        }
        assert_eq!(sampled(None, JUST_OUT, &scenario("video_playback")).decision, SamplingDecision::Drop);
        assert_eq!(sampled(None, JUST_OUT + 1, &scenario("video_playback")).trace_state.header(), "ot=th:f3333");
        assert_eq!(sampled(None, 1, &scenario("quiz")).decision, SamplingDecision::Drop, "10 % of other scenarios");
        let failed = [scenario("video_playback")[0].clone(), KeyValue::new("error.type", "stall")];
        assert_eq!(sampled(None, 1, &failed).trace_state.header(), "ot=th:0");
    }

    #[test]
    fn the_platforms_decision_and_randomness_are_used() {
        let video = scenario("video_playback");
        let chosen = sampled(Some(&parent(1, "a=1,ot=th:c")), 1, &video);
        assert_eq!(chosen.decision, SamplingDecision::RecordAndSample);
        assert_eq!(chosen.trace_state.header(), "a=1,ot=th:c", "the threshold is unchanged");
        assert_eq!(sampled(Some(&parent(0, "a=1")), 1, &video).decision, SamplingDecision::Drop);
        let explicit = sampled(Some(&parent(0, "a=1,ot=x:y;rv:ffffffffffffff")), 1, &video);
        assert_eq!(explicit.trace_state.header(), "ot=th:f3333;x:y;rv:ffffffffffffff,a=1");
    }

    proptest! {
        #[test]
        fn a_higher_share_keeps_what_a_lower_one_keeps(id in 1_u128.., low in 0.0_f64..=1.0, high in 0.0_f64..=1.0) {
            let (low, high) = (low.min(high), low.max(high));
            let keeps = |share| {
                let shares = SamplingSettings { video_playback: share, ..SamplingSettings::default() };
                let sampler = ScenarioSampler::new(shares);
                let video = scenario("video_playback");
                let id = TraceId::from(id);
                sampler.should_sample(None, id, "", &SpanKind::Internal, &video, &[]).decision
            };
            if keeps(low) == SamplingDecision::RecordAndSample {
                prop_assert_eq!(keeps(high), SamplingDecision::RecordAndSample);
            }
        }
    }
}
