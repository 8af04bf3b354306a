//! From observations to everything that leaves the node, in one order: registry, alerts, node totals, span plan.
//! Decides nothing itself. Live operation, replay and benchmarks all run this, so a recorded day gives the same
//! batches, notices and spans.

use crate::alert::{AlertEvaluator, Capacity};
use crate::metrics::Fleet;
use crate::model::{Batch, Checkpoint, Entry, Environment, Name, Notice, Objectives, Observation, Timestamp};
use crate::session::{Registry, SessionTimeouts};
use crate::trace::{SpanCommand, SpanPlan};

/// All rules, connected.
#[derive(Clone, Debug)]
pub struct Pipeline {
    objectives: Objectives,
    registry: Registry,
    evaluator: AlertEvaluator,
    fleet: Fleet,
    plan: SpanPlan,
}

/// The result of one tick.
#[derive(Clone, Debug, Default)]
pub struct Tick {
    /// Sessions that opened or closed, and samples when a window was cut.
    pub batch: Batch,
    /// Alerts that began or ended.
    pub notices: Vec<Notice>,
    /// What is added to the traces.
    pub commands: Vec<SpanCommand>,
    /// What must outlive the daemon.
    pub entries: Vec<Entry>,
}

impl Pipeline {
    /// An empty pipeline for the node of this name.
    #[must_use]
    pub fn new(node: &str, objectives: Objectives, timeouts: SessionTimeouts, max_sessions: usize) -> Self {
        Self {
            objectives,
            registry: Registry::new(timeouts, max_sessions),
            evaluator: AlertEvaluator::default(),
            fleet: Fleet::default(),
            plan: SpanPlan::new(node),
        }
    }

    /// Applies new settings, to live sessions too.
    pub fn set(&mut self, objectives: Objectives, timeouts: SessionTimeouts, max_sessions: usize) {
        self.objectives = objectives;
        self.registry.set_timeouts(timeouts, max_sessions);
    }

    /// Folds an observation.
    pub fn observe(&mut self, observation: Observation) {
        self.registry.observe(observation);
    }

    /// Advances everything to `now`.
    pub fn tick(&mut self, now: Timestamp, environment: &Environment) -> Tick {
        let batch = self.registry.tick(now);
        let mut notices = self.evaluator.evaluate(now, &self.objectives, &self.registry, environment);
        notices.extend(self.evaluator.close(&batch.closed));
        self.fleet.take(&batch.samples, &self.objectives);
        let registry = &self.registry;
        let commands = self.plan.take(now, &batch, &notices, |session| {
            let rtt = registry.session(&session.id)?.publisher_rtt()?;
            Some(rtt.as_secs_f64() * 1e3)
        });
        Tick { batch, notices, commands, entries: self.take_entries() }
    }

    /// Restores what was live when the daemon stopped, before the first tick. Minutes, incidents and classes continue,
    /// so a span begun before ends as if nothing had happened.
    pub fn resume(&mut self, checkpoint: &Checkpoint, now: Timestamp) {
        for session in self.registry.resume(checkpoint, now) {
            let Some(class) = checkpoint.classes.get(&session.id) else {
                continue;
            };
            self.plan.resume(&session, class);
            self.evaluator.resume(&session, class.traced.as_ref().map_or(&[], |traced| &traced.incidents));
        }
    }

    /// As [`Pipeline::resume`], in the middle of a run, of a checkpoint that became readable only now. A class that was
    /// found again meanwhile stays as it is. Gives the entries that must outlive the daemon.
    pub fn join(&mut self, mut found: Checkpoint, now: Timestamp) -> Vec<Entry> {
        found.classes.retain(|id, class| self.registry.is_new(id, &class.known.streams));
        found.announced.retain(|stream, _| !self.registry.is_announced(stream));
        self.resume(&found, now);
        found.entries().collect()
    }

    /// The alerts firing on live classes, as of their last notice.
    pub fn incidents(&self) -> impl Iterator<Item = &Notice> {
        self.plan.incidents()
    }

    /// When a live class opened.
    #[must_use]
    pub fn opened_at(&self, id: &Name) -> Option<Timestamp> {
        self.plan.opened_at(id)
    }

    /// Forgets all live sessions, because the clock was set back and their times mean nothing any more. The node's sums
    /// and the platform's announcements stay; classes that are still live open again.
    pub fn forget(&mut self) -> Tick {
        self.registry.forget();
        self.evaluator = AlertEvaluator::default();
        let commands = self.plan.stop();
        self.plan.forget();
        Tick { commands, entries: self.take_entries(), ..Tick::default() }
    }

    /// Ends the open segments because the daemon stops.
    pub fn stop(&mut self) -> Vec<SpanCommand> {
        self.plan.stop()
    }

    fn take_entries(&mut self) -> Vec<Entry> {
        let mut entries = self.registry.take_entries();
        entries.extend(self.plan.take_entries());
        entries
    }

    /// How many more viewers the node can carry; see [`AlertEvaluator::capacity`].
    #[must_use]
    pub fn capacity(&self) -> Option<Capacity> {
        self.evaluator.capacity(&self.objectives)
    }

    /// The live sessions.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The live sessions, to announce and end classes.
    pub const fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The node's running sums.
    #[must_use]
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::LatencyHistogram;
    use crate::model::{Fact, NoticeState, PathView, Protocol, ServerView, StreamKey, TICK, Total};
    use crate::trace::{Span, SpanName, Value};

    /// A publisher alone until `gone`, then nobody; ticks until `end`. Both in milliseconds, from 40 s past a minute.
    fn play(gone: u64, end: u64, also: impl Fn(u64) -> Option<Fact>) -> Tick {
        let mut pipeline = Pipeline::new("n", Objectives::default(), SessionTimeouts::default(), 10);
        let mut all = Tick::default();
        for millis in (0..=end).step_by(TICK.as_millis() as usize) {
            let at = Timestamp::from_secs(1_000_000) + Duration::from_millis(millis);
            let view = ServerView {
                publishing: Some(true),
                ingest_bytes: Some(Total { base: 1, value: millis * 125 }),
                viewers: Some(vec![(Protocol::Rtmp, 1)]),
                ..ServerView::default()
            };
            let server = if millis < gone { Fact::Server(Box::new(view)) } else { Fact::Gone };
            for fact in [Some(server), also(millis)].into_iter().flatten() {
                let (source, stream) = ("nginx-rtmp".into(), StreamKey::parse("live/c1").expect("a good key"));
                let observation = Observation { source, stream, at, fact };
                pipeline.observe(observation);
            }
            let tick = pipeline.tick(at, &Environment::default());
            all.batch.samples.extend(tick.batch.samples);
            all.notices.extend(tick.notices);
            all.commands.extend(tick.commands);
        }
        all
    }

    fn path(viewers: u32, millis: u64) -> Fact {
        let mut latencies = LatencyHistogram::default();
        for _ in 0..viewers {
            latencies.record(Duration::from_millis(millis));
        }
        Fact::Path(Box::new(PathView {
            protocol: if viewers > 0 { Protocol::Rtmp } else { Protocol::Mixed },
            viewers,
            latencies,
            segments_sent: None,
            segments_lost: None,
            rtt: None,
            backlog_bytes: 0,
            publisher_rtt: Some(Duration::from_millis(8)),
        }))
    }

    fn spans(tick: &Tick, name: SpanName) -> Vec<&Span> {
        let exported = tick.commands.iter().filter_map(|command| match command {
            SpanCommand::Export(span) => Some(&**span),
            SpanCommand::Emit(_) => None,
        });
        exported.filter(|span| span.this.name == name).collect()
    }

    #[test]
    fn a_class_that_closes_with_a_full_minute_has_a_last_segment() {
        let tick = play(16_000, 30_000, |_| None);
        let last = |span: &&Span| span.attributes.contains(&("live.segment.final", Value::Bool(true)));
        assert_eq!(spans(&tick, SpanName::TeachingComplete).len(), 1);
        let segments = spans(&tick, SpanName::TeachingConduct);
        assert_eq!((segments.len(), segments.iter().filter(|span| last(span)).count()), (1, 1));
        let goes_on = play(40_000, 21_000, |_| None);
        let segments = spans(&goes_on, SpanName::TeachingConduct);
        assert_eq!((segments.len(), segments.iter().filter(|span| last(span)).count()), (1, 0));
    }

    #[test]
    fn the_publishers_round_trip_is_known_without_viewers_and_makes_no_leg() {
        let tick = play(40_000, 11_000, |_| Some(path(0, 0)));
        let connection = spans(&tick, SpanName::ConnectionEstablish);
        assert!(connection[0].attributes.contains(&("connection.latency", Value::Float(8.0))));
        let legs = |sample: &crate::model::Sample| sample.legs.iter().map(|leg| leg.leg.as_str()).collect::<Vec<_>>();
        assert!(tick.batch.samples.iter().all(|sample| legs(sample) == ["ingest", "rtmp"]));
    }

    #[test]
    fn an_alert_that_ends_with_its_class_keeps_its_evidence() {
        let tick = play(16_000, 30_000, |millis| (millis < 16_000).then(|| path(1, 900)));
        let [fired, resolved] = tick.notices.as_slice() else {
            panic!("{:?}", tick.notices);
        };
        assert_eq!((fired.state, resolved.state), (NoticeState::Firing, NoticeState::Resolved));
        assert!((resolved.evidence.value - 0.9).abs() < 0.01, "{}", resolved.summary());
    }
}
