//! FACE

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
