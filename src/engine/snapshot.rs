//! What readers see of the engine: the page, the API and `/metrics` all read one immutable snapshot, which is replaced
//! after every tick that changed something.

use std::collections::BTreeMap;
use std::sync::Arc;

use liveqos_core::alert::Capacity;
use liveqos_core::base::hex;
use liveqos_core::metrics::{Fleet, FleetKey};
use liveqos_core::model::{Alert, LegSample, Name, Notice, NoticeState, Sample, Session, Timestamp};
use liveqos_core::pipeline::{Pipeline, Tick};
use liveqos_core::session::Refused;

use crate::platform::trace_id;

/// A live class.
#[derive(Clone, Debug)]
pub struct SessionState {
    /// Its identity.
    pub session: Arc<Session>,
    /// Id of its trace, in hexadecimal.
    pub trace_id: String,
    /// When its first byte was observed.
    pub opened_at: Timestamp,
    /// Its newest sample.
    pub sample: Option<Arc<Sample>>,
}

/// A value with the trace that shows it (`OpenMetrics` exemplar).
#[derive(Clone, Debug)]
pub struct Exemplar {
    /// Id of the trace, in hexadecimal.
    pub trace_id: String,
    /// The value.
    pub value: f64,
    /// When it was measured.
    pub at: Timestamp,
}

/// The state of the node as of a tick.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// End of the newest window.
    pub cut_at: Option<Timestamp>,
    /// Live classes by id.
    pub sessions: BTreeMap<Name, SessionState>,
    /// Firing alerts.
    pub alerts: Vec<Notice>,
    /// Sums of the node since its start.
    pub fleet: Fleet,
    /// The class with the highest latency in the newest window, for each sum.
    pub exemplars: BTreeMap<FleetKey, Exemplar>,
    /// What the registry refused at its bounds.
    pub refused: Refused,
    /// How many more viewers the node can serve, where that is known.
    pub capacity: Option<Capacity>,
}

impl Snapshot {
    /// The state at the start: classes and alerts of the last run that are resumed.
    #[must_use]
    pub fn resumed(pipeline: &Pipeline) -> Self {
        let mut out = Self { alerts: pipeline.incidents().cloned().collect(), ..Self::default() };
        for live in pipeline.registry().sessions() {
            let session = Arc::clone(&live.session);
            let opened_at = pipeline.opened_at(&session.id).unwrap_or_default();
            let trace_id = hex::encode(&trace_id::trace_id(&session));
            out.sessions.insert(session.id.clone(), SessionState { session, trace_id, opened_at, sample: None });
        }
        out
    }

    /// Applies the results of a tick; returns whether anything changed.
    pub fn take(&mut self, tick: &Tick) -> bool {
        for opened in &tick.batch.opened {
            let session = Arc::clone(&opened.session);
            let trace_id = hex::encode(&trace_id::trace_id(&session));
            let state = SessionState { session, trace_id, opened_at: opened.at, sample: None };
            self.sessions.insert(opened.session.id.clone(), state);
        }
        if let Some(window) = tick.batch.window {
            self.cut_at = Some(window.end);
            self.exemplars.clear();
        }
        for sample in &tick.batch.samples {
            if let Some(state) = self.sessions.get_mut(&sample.session.id) {
                state.session = Arc::clone(&sample.session);
                state.sample = Some(Arc::new(sample.clone()));
                for leg in &sample.legs {
                    keep_worst(&mut self.exemplars, sample, leg, &state.trace_id);
                }
            }
        }
        for closed in &tick.batch.closed {
            self.sessions.remove(&closed.session.id);
        }
        for notice in &tick.notices {
            self.alerts.retain(|firing| !is_same(firing, notice));
            if notice.state == NoticeState::Firing {
                self.alerts.push(notice.clone());
            }
        }
        !tick.batch.is_empty() || !tick.notices.is_empty()
    }

    /// How many alerts of this kind are firing, forecasts not counted.
    #[must_use]
    pub fn firing(&self, alert: Alert) -> usize {
        self.alerts.iter().filter(|notice| notice.alert == alert && notice.forecast.is_none()).count()
    }
}

/// Keeps the class with the highest latency.
fn keep_worst(exemplars: &mut BTreeMap<FleetKey, Exemplar>, sample: &Sample, leg: &LegSample, trace_id: &str) {
    let Some(value) = leg.latency.as_ref().and_then(|latency| latency.value.quantile_seconds(0.95)) else {
        return;
    };
    let key = FleetKey { leg: leg.leg, scenario: sample.session.scenario };
    if exemplars.get(&key).is_none_or(|worst| worst.value < value) {
        exemplars.insert(key, Exemplar { trace_id: trace_id.to_owned(), value, at: sample.window.end });
    }
}

fn is_same(a: &Notice, b: &Notice) -> bool {
    a.alert == b.alert && a.subject.key() == b.subject.key()
}
