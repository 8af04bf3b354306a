//! What the platform reports about a class: in the publish URL's query, a hook's form or a registration. Decides which
//! keys count, and that the first of a repeated key wins. A malformed value is left out and counted; the others stay.

use serde::{Deserialize, Serialize};

use super::session::{Name, Protocol, Scenario, Session, StreamKey};
use super::trace_parent::TraceParent;
use super::trace_state::TraceState;
use crate::base::percent::decode_form_text;

/// Facts about a class that no media server measures; each may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Descriptor {
    /// The platform's id of the class.
    pub session_id: Option<Name>,
    /// The course it belongs to.
    pub course_id: Option<Name>,
    /// The teacher's pseudonymous id.
    pub teacher_id: Option<Name>,
    /// What the class is for.
    pub scenario: Option<Scenario>,
    /// Students expected.
    pub student_count: Option<u32>,
    /// The platform's trace context.
    pub trace_parent: Option<TraceParent>,
    /// The `tracestate` of that context.
    pub trace_state: Option<TraceState>,
    /// How the publisher sends.
    pub stream_type: Option<Protocol>,
    /// The publisher's connection id on its server.
    pub connection_id: Option<Name>,
    /// Interactions so far (questions, hands raised), as the platform counts them.
    pub interactions: Option<u64>,
}

impl Descriptor {
    /// The one place where a session's identity is built: the platform's id where reported, else the stream's key. An
    /// opened session keeps its id and its trace.
    pub(crate) fn session(&self, stream: StreamKey, opened: Option<&Session>) -> Session {
        let reported = opened.map(|session| &session.id).or(self.session_id.as_ref());
        Session {
            id: reported.unwrap_or(stream.name()).clone(),
            course_id: self.course_id.clone(),
            teacher_id: self.teacher_id.clone(),
            scenario: self.scenario.unwrap_or_default(),
            student_count: self.student_count,
            trace_parent: opened.map_or(self.trace_parent, |session| session.trace_parent),
            trace_state: match opened {
                Some(session) => session.trace_state.clone(),
                None => self.trace_state.clone().filter(|_| self.trace_parent.is_some()),
            },
            stream_type: self.stream_type,
            stream,
        }
    }

    /// Reads a URL query or form body, `session_id=s1&course_id=c9&traceparent=00-…`: percent-decoded, a leading `?`
    /// allowed, unknown keys ignored, the first of a repeated key kept (a player may append its own). Gives the number
    /// of values left out because they were malformed beside the descriptor.
    ///
    /// ```
    /// use liveqos_core::model::descriptor::Descriptor;
    /// let (class, refused) = Descriptor::from_query("?session_id=s1&course_id=c%209&session_id=x&traceparent=junk");
    /// assert_eq!(class.session_id.unwrap().as_str(), "s1");
    /// assert_eq!(class.course_id.unwrap().as_str(), "c 9");
    /// assert_eq!(refused, 1);
    /// ```
    #[must_use]
    pub fn from_query(query: &str) -> (Self, u32) {
        let mut class = Self::default();
        let mut refused = 0;
        for (key, value) in pairs(query) {
            if value.is_empty() {
                continue;
            }
            let good = match key {
                "session_id" => keep(&mut class.session_id, Name::new(&value).ok()),
                "course_id" => keep(&mut class.course_id, Name::new(&value).ok()),
                "teacher_id" => keep(&mut class.teacher_id, Name::new(&value).ok()),
                "scenario" | "education.scenario" => keep(&mut class.scenario, Scenario::parse(&value)),
                "student_count" => keep(&mut class.student_count, value.parse().ok()),
                "traceparent" => keep(&mut class.trace_parent, TraceParent::parse(&value).ok()),
                "tracestate" => keep(&mut class.trace_state, TraceState::parse(&value).ok()),
                _ => true,
            };
            refused += u32::from(!good);
        }
        (class, refused)
    }

    /// Whether it contains nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over what `newer` contains; the rest stays.
    pub fn merge(&mut self, newer: Self) {
        fn over<T>(slot: &mut Option<T>, value: Option<T>) {
            if value.is_some() {
                *slot = value;
            }
        }
        over(&mut self.session_id, newer.session_id);
        over(&mut self.course_id, newer.course_id);
        over(&mut self.teacher_id, newer.teacher_id);
        over(&mut self.scenario, newer.scenario);
        over(&mut self.student_count, newer.student_count);
        over(&mut self.trace_parent, newer.trace_parent);
        over(&mut self.trace_state, newer.trace_state);
        over(&mut self.stream_type, newer.stream_type);
        over(&mut self.connection_id, newer.connection_id);
        over(&mut self.interactions, newer.interactions);
    }
}

/// The `key=value` pairs of a URL query or `application/x-www-form-urlencoded` body, values percent-decoded, in order.
/// At most [`MAX_PAIRS`] are read.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, String)> {
    query
        .trim_start_matches('?')
        .split('&')
        .take(MAX_PAIRS)
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key, decode_form_text(value)))
}

/// Most pairs read from one query.
pub const MAX_PAIRS: usize = 64;

fn keep<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let good = value.is_some();
    if slot.is_none() {
        *slot = value;
    }
    good
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unknown_scenario_is_left_out_and_the_rest_stays() {
        let (class, refused) = Descriptor::from_query("scenario=party&student_count=300");
        assert_eq!((class.scenario, class.student_count, refused), (None, Some(300), 1));
    }

    #[test]
    fn newer_facts_win_and_missing_ones_stay() {
        let (mut class, _) = Descriptor::from_query("session_id=s1&course_id=c1");
        class.merge(Descriptor::from_query("course_id=c2").0);
        assert_eq!(class.session_id.as_ref().map(Name::as_str), Some("s1"));
        assert_eq!(class.course_id.as_ref().map(Name::as_str), Some("c2"));
    }

    proptest! {
        #[test]
        fn any_query_is_read(query in "\\PC{0,200}") {
            let (class, refused) = Descriptor::from_query(&query);
            prop_assert!(refused as usize <= MAX_PAIRS);
            prop_assert!(class.session_id.is_none_or(|id| !id.as_str().is_empty()));
        }
    }
}
