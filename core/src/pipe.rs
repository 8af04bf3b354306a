//! The pipe from observations to what leaves the node, in one order: registry, judge, fleet sums, span plan. Decides nothing of its
//! own; live operation, replay and benchmarks all run this, so a recorded day gives the same batches, notices and spans.

use crate::fleet::Fleet;
use crate::judge::{Judge, Objectives, Surroundings};
use crate::notice::Notice;
use crate::observation::Observation;
use crate::registry::{Patience, Registry};
use crate::sample::Batch;
use crate::span::SpanCommand;
use crate::span_plan::SpanPlan;
use crate::time::Timestamp;

/// All rules, wired.
#[derive(Clone, Debug)]
pub struct Pipe {
    objectives: Objectives,
    registry: Registry,
    judge: Judge,
    fleet: Fleet,
    plan: SpanPlan,
}

/// What one beat brought.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    /// Lifecycle, and samples when a window was cut.
    pub batch: Batch,
    /// Alerts that began or ended.
    pub notices: Vec<Notice>,
    /// What the traces gained.
    pub commands: Vec<SpanCommand>,
}

impl Pipe {
    /// An empty pipe for the node of this name.
    #[must_use]
    pub fn new(node: &str, objectives: Objectives, patience: Patience, max_sessions: usize) -> Self {
        Self {
            objectives,
            registry: Registry::new(patience, max_sessions),
            judge: Judge::default(),
            fleet: Fleet::default(),
            plan: SpanPlan::new(node),
        }
    }

    /// Takes over new settings for what lives already.
    pub fn set(&mut self, objectives: Objectives, patience: Patience, max_sessions: usize) {
        self.objectives = objectives;
        self.registry.set_patience(patience, max_sessions);
    }

    /// Folds what a source said.
    pub fn observe(&mut self, observation: Observation) {
        self.registry.observe(observation);
    }

    /// Moves everything on to `now`.
    pub fn beat(&mut self, now: Timestamp, around: &Surroundings) -> Beat {
        let batch = self.registry.beat(now);
        let mut notices = self.judge.look(now, &self.objectives, &self.registry, around);
        notices.extend(self.judge.close(&batch.closed));
        self.fleet.take(&batch.samples, &self.objectives);
        let registry = &self.registry;
        let commands = self.plan.take(now, &batch, &notices, |session| {
            let rtt = registry.session(&session.id)?.publisher_rtt()?;
            Some(rtt.as_secs_f64() * 1e3)
        });
        Beat {
            batch,
            notices,
            commands,
        }
    }

    /// Forgets all live sessions, because the clock was set back and their instants mean nothing any more. The node's sums and
    /// what the platform announced stay; who still lives opens again.
    pub fn forget(&mut self) -> Vec<SpanCommand> {
        self.registry.forget();
        self.judge = Judge::default();
        let commands = self.plan.stop();
        self.plan.forget();
        commands
    }

    /// Ends the open segments because the daemon stops.
    pub fn stop(&mut self) -> Vec<SpanCommand> {
        self.plan.stop()
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
