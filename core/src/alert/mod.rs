//! Which alerts fire and resolve, with their evidence, cause and forecast.
//!
//! **Decides** when an objective is broken or kept again, by evidence and hysteresis: per class in `class_alerts`
//! (legs, latency, publisher), per node, source and path in `evaluator`. Decides where a fault lies (`cause`)
//! and what is likely to break soon (`forecast`). Missing data never counts as health.
//!
//! **In**: the live sessions of the [`Registry`](crate::session::Registry), the
//! [`Environment`](crate::model::Environment) (node load, sources, paths) and the
//! [`Objectives`](crate::model::Objectives), every 250 ms.
//!
//! **Out**: [`Notice`](crate::model::Notice)s, to the pipeline; the [`Capacity`] left on the node.
//!
//! **May import** base, model, session. Knows nothing of traces.

mod alert_state;
mod cause;
mod class_alerts;
mod concentration;
mod evaluator;
mod evidence;
mod evidence_window;
mod forecast;
mod hysteresis;
mod latency_rules;
mod leg_rules;
mod notice;
mod path_rules;
mod publisher_rules;
mod trend;

pub use self::evaluator::AlertEvaluator;
pub use self::evidence_window::{EvidenceRule, EvidenceWindow, Judgement};
pub use self::forecast::Capacity;
