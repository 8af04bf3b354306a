//! FACE

mod cause;
mod class_alerts;
mod evaluator;
mod evidence_window;
mod forecast;
mod hysteresis;
mod leg_rules;
mod path_rules;
mod publisher_rules;
mod trend;

pub use self::evaluator::AlertEvaluator;
pub use self::evidence_window::{EvidenceRule, EvidenceWindow, Judgement};
pub use self::forecast::Capacity;
