//! FACE

pub mod beacon;
pub mod beacon_report;
mod beacon_viewer;
pub mod cmcd;
pub mod ended_sessions;
pub mod listener;
pub mod rate_limit;
pub mod script;
pub mod settings;
pub mod token;
