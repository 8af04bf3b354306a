//! FACE

pub mod history;
pub mod recorder;
pub mod snapshot;
pub mod tick;
