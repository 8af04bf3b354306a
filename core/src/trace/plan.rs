//! The trace of a class while it happens. Decides which spans there are, when each is exported and what its parent is.
//! Nothing is held back: the root is exported when the class opens, every minute when it is full, the whole at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attributes::{of_notice, of_session, ratio, stream_url};
use super::segment::Segment;
use super::span::{Event, LogEvent, Parent, Span, SpanCommand, SpanName, SpanRef, Value};
use crate::base::SmallMap;
use crate::model::{
    Alert, Batch, Class, Closed, Entry, Incident, Name, Notice, NoticeState, Opened, Reading, Sample, Session, Subject,
    Timestamp, Traced, minute_of,
};

/// The open traces, one per live session.
#[derive(Clone, Debug)]
pub(crate) struct SpanPlan {
    node: Arc<str>,
    traces: BTreeMap<Name, Box<Trace>>,
    /// Changes that must outlive the daemon, since they were last taken.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Trace {
    session: Arc<Session>,
    opened_at: Timestamp,
    connection_id: Option<Name>,
    up: bool,
    segment: Option<Segment>,
    most_viewers: Option<u32>,
    interactions: Option<u64>,
    /// Firing alerts, as of their last notice; at most one of each alert.
    incidents: SmallMap<Alert, Notice>,
    /// Whether anything but samples changed since its last entry.
    changed: bool,
}

impl SpanPlan {
    /// A plan for the node of this name.
    #[must_use]
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.into(), traces: BTreeMap::new(), entries: Vec::new() }
    }

    /// What a batch and its notices add to the traces. `publisher_rtt_millis` gives the round trip to a session's
    /// publisher, where known.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        batch: &Batch,
        notices: &[Notice],
        publisher_rtt_millis: impl Fn(&Session) -> Option<f64>,
    ) -> Vec<SpanCommand> {
        let mut out = Vec::new();
        // On most ticks nothing happens, and then no trace changed.
        if batch.is_empty() && notices.is_empty() {
            return out;
        }
        for opened in &batch.opened {
            self.open(now, opened, &mut out);
        }
        for sample in &batch.samples {
            if let Some(trace) = self.traces.get_mut(&sample.session.id) {
                let reading = Reading::of(sample);
                self.entries.push(Entry::Sampled(sample.session.id.clone(), Box::new(reading)));
                trace.sample((sample, &reading), &self.node, &publisher_rtt_millis, &mut out);
            }
        }
        for notice in notices.iter().filter(|notice| notice.forecast.is_none()) {
            if let Subject::Session(session) = &notice.subject {
                incident(session, notice, self.traces.get_mut(&session.id).map(Box::as_mut), &mut out);
            }
        }
        for closed in &batch.closed {
            if let Some(trace) = self.traces.remove(&closed.session.id) {
                trace.close(closed, &mut out);
            }
        }
        // Only now: a class that closes with a full minute ends its last segment in `close`.
        for sample in &batch.samples {
            if let Some(trace) = self.traces.get_mut(&sample.session.id)
                && trace.segment.as_ref().is_some_and(Segment::is_full)
            {
                trace.end_segment(false, &mut out);
            }
        }
        for (id, trace) in self.traces.iter_mut().filter(|(_, trace)| trace.changed) {
            trace.changed = false;
            self.entries.push(Entry::Traced(id.clone(), Box::new(trace.traced())));
        }
        out
    }

    /// Takes the changes that must outlive the daemon.
    pub(crate) fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Continues the trace of `class`. A minute that was full is exported already.
    pub(crate) fn resume(&mut self, session: &Arc<Session>, class: &Class) {
        let Some(traced) = &class.traced else {
            return;
        };
        let mut segment = class.minute.first().map(|first| Segment::new(first.window));
        if let Some(segment) = &mut segment {
            class.minute.iter().for_each(|reading| drop(segment.add(reading)));
        }
        let mut incidents = SmallMap::new();
        for incident in &traced.incidents {
            incidents.at(incident.alert, || incident.notice(session));
        }
        let trace = Trace {
            session: Arc::clone(session),
            opened_at: traced.opened_at,
            connection_id: traced.connection_id.clone(),
            up: traced.up,
            segment: segment.filter(|segment| !segment.is_full()),
            most_viewers: traced.most_viewers,
            interactions: traced.interactions,
            incidents,
            changed: false,
        };
        self.traces.insert(session.id.clone(), Box::new(trace));
    }

    /// The firing alerts of live classes.
    pub(crate) fn incidents(&self) -> impl Iterator<Item = &Notice> {
        self.traces.values().flat_map(|trace| trace.incidents.values())
    }

    /// When a live class opened.
    pub(crate) fn opened_at(&self, id: &Name) -> Option<Timestamp> {
        self.traces.get(id).map(|trace| trace.opened_at)
    }

    /// Ends the open segments as they are because the daemon stops; the classes continue.
    pub(crate) fn stop(&mut self) -> Vec<SpanCommand> {
        let mut out = Vec::new();
        for trace in self.traces.values_mut() {
            trace.end_segment(false, &mut out);
        }
        out
    }

    /// Forgets all open traces.
    pub(crate) fn forget(&mut self) {
        self.traces.clear();
    }

    fn open(&mut self, now: Timestamp, opened: &Opened, out: &mut Vec<SpanCommand>) {
        let trace = Trace {
            session: Arc::clone(&opened.session),
            opened_at: opened.at,
            connection_id: opened.connection_id.clone(),
            up: false,
            segment: None,
            most_viewers: None,
            interactions: None,
            incidents: SmallMap::new(),
            changed: true,
        };
        let mut root = trace.span(SpanName::TeachingStart, Parent::Platform, (opened.at, now.max(opened.at)));
        let count = opened.session.student_count;
        root.attributes.extend(count.map(|count| ("student.count", Value::Int(i64::from(count)))));
        out.push(SpanCommand::Export(Box::new(root)));
        self.traces.insert(opened.session.id.clone(), Box::new(trace));
    }
}

impl Trace {
    /// A span that begins with the class, and so has the class's start as its ordinal.
    fn span(&self, name: SpanName, parent: Parent, (start, end): (Timestamp, Timestamp)) -> Span {
        Span {
            session: Arc::clone(&self.session),
            this: self.at_start(name),
            parent,
            start,
            end: end.max(start),
            error: None,
            attributes: of_session(&self.session),
            events: Vec::new(),
        }
    }

    const fn at_start(&self, name: SpanName) -> SpanRef {
        SpanRef { name, ordinal: self.opened_at.nanos() }
    }

    const fn under(&self, name: SpanName) -> Parent {
        Parent::Span(self.at_start(name))
    }

    fn sample(
        &mut self,
        (sample, reading): (&Sample, &Reading),
        node: &str,
        publisher_rtt_millis: impl Fn(&Session) -> Option<f64>,
        out: &mut Vec<SpanCommand>,
    ) {
        self.session = Arc::clone(&sample.session);
        if !self.up && sample.ingest().is_some_and(|leg| leg.bytes.is_some_and(|bytes| bytes > 0)) {
            self.up = true;
            self.changed = true;
            self.start_stream(sample.window.end, node, publisher_rtt_millis(&sample.session), out);
        }
        self.most_viewers = self.most_viewers.max(sample.viewers().map(|viewers| viewers.value));
        self.interactions = sample.interactions.or(self.interactions);
        if self.segment.as_ref().is_some_and(|segment| segment.minute() != minute_of(sample.window)) {
            self.end_segment(false, out);
        }
        let segment = self.segment.get_or_insert_with(|| Segment::new(sample.window));
        let (span, mut event) = (segment.this(), segment.add(reading));
        event.attributes.insert(0, ("session.id", Value::Text(self.session.id.text())));
        let session = Arc::clone(&self.session);
        out.push(SpanCommand::Emit(Box::new(LogEvent { session, span, event })));
    }

    fn start_stream(&self, at: Timestamp, node: &str, rtt_millis: Option<f64>, out: &mut Vec<SpanCommand>) {
        let began = (self.opened_at, at);
        let connection = self.connection_id.as_ref().map(|id| ("connection.id", Value::Text(id.text())));
        let mut establish = self.span(SpanName::StreamEstablish, self.under(SpanName::TeachingStart), began);
        establish.attributes.extend(connection.clone());
        establish.attributes.push(("stream.url", stream_url(&self.session, node)));
        let complete = self.under(SpanName::TeachingComplete);
        let mut connect = self.span(SpanName::ConnectionEstablish, complete, (self.opened_at, self.opened_at));
        connect.attributes.extend(connection);
        connect.attributes.extend(rtt_millis.map(|millis| ("connection.latency", Value::Float(millis))));
        let start = self.span(SpanName::StreamStart, complete, began);
        out.extend([establish, connect, start].map(|span| SpanCommand::Export(Box::new(span))));
    }

    fn traced(&self) -> Traced {
        Traced {
            opened_at: self.opened_at,
            trace_parent: self.session.trace_parent,
            trace_state: self.session.trace_state.clone(),
            connection_id: self.connection_id.clone(),
            up: self.up,
            most_viewers: self.most_viewers,
            interactions: self.interactions,
            incidents: self.incidents.values().map(Incident::of).collect(),
        }
    }

    fn end_segment(&mut self, last: bool, out: &mut Vec<SpanCommand>) {
        if let Some(segment) = self.segment.take() {
            let span = segment.finish(&self.session, self.under(SpanName::TeachingStart), last);
            out.push(SpanCommand::Export(Box::new(span)));
        }
    }

    fn close(mut self, closed: &Closed, out: &mut Vec<SpanCommand>) {
        self.end_segment(true, out);
        let whole = (self.opened_at, closed.at);
        let complete = self.under(SpanName::TeachingComplete);
        let mut interaction = self.span(SpanName::Interaction, complete, whole);
        let count = self.interactions.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        interaction.attributes.extend(count.map(|count| ("interaction.count", Value::Int(count))));
        out.push(SpanCommand::Export(Box::new(interaction)));
        let duration = ratio(closed.at.since(self.opened_at).as_secs_f64());
        let viewers = self.most_viewers.map(|count| ("total.viewers", Value::Int(i64::from(count))));
        let mut end = self.span(SpanName::StreamEnd, complete, (closed.at, closed.at));
        end.attributes.push(("session.duration", duration.clone()));
        end.attributes.extend(viewers.clone());
        let mut all = self.span(SpanName::TeachingComplete, self.under(SpanName::TeachingStart), whole);
        all.attributes.push(("session.duration", duration));
        all.attributes.extend(viewers);
        all.attributes.push(("live.end.reason", Value::Static(closed.reason.as_str())));
        out.extend([end, all].map(|span| SpanCommand::Export(Box::new(span))));
    }
}

/// An incident's event when it begins and when it ends; its span, with real start and end, when it is over.
fn incident(session: &Arc<Session>, notice: &Notice, trace: Option<&mut Trace>, out: &mut Vec<SpanCommand>) {
    // Several alerts may begin at one instant: the alert's number keeps their spans apart (an onset is never exact to
    // the nanosecond).
    let this =
        SpanRef { name: SpanName::QosIncident, ordinal: notice.started_at.nanos().saturating_add(notice.alert as u64) };
    let (name, at) = match notice.state {
        NoticeState::Firing if notice.renotified => ("live.qos.incident.cause", notice.at),
        NoticeState::Firing => ("live.qos.incident.start", notice.started_at),
        NoticeState::Resolved => ("live.qos.incident.end", notice.at),
    };
    let mut attributes = vec![("session.id", Value::Text(session.id.text()))];
    attributes.extend(of_notice(notice));
    let event = Event { name, at, attributes };
    out.push(SpanCommand::Emit(Box::new(LogEvent { session: Arc::clone(session), span: this, event })));
    let parent = trace.as_ref().map_or(Parent::Platform, |trace| trace.under(SpanName::TeachingStart));
    // The span has the numbers of the fault; those of the recovery are in its closing event.
    let mut fault = None;
    if let Some(trace) = trace {
        trace.changed = true;
        fault = trace.incidents.take(|alert| *alert == notice.alert).pop();
        if notice.state == NoticeState::Firing {
            trace.incidents.at(notice.alert, || notice.clone());
        }
    }
    if notice.state == NoticeState::Resolved {
        let fault = fault.as_ref().map_or(notice, |(_, fault)| fault);
        let mut attributes = of_session(session);
        attributes.extend(of_notice(fault));
        out.push(SpanCommand::Export(Box::new(Span {
            session: Arc::clone(session),
            this,
            parent,
            start: notice.started_at,
            end: notice.at.max(notice.started_at),
            error: Some(fault.summary().into()),
            attributes,
            events: Vec::new(),
        })));
    }
}
