//! FACE

pub mod disk_queue;
mod late_found;
mod queue;
mod recovery;
pub mod segment;
mod writer;
