//! FACE

mod cause;
mod class_alerts;
pub mod evaluator;
pub mod evidence_window;
pub mod forecast;
pub mod hysteresis;
mod leg_rules;
mod path_rules;
mod publisher_rules;
pub mod trend;
