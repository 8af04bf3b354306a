//! FACE

mod disk_queue;
mod late_found;
mod queue;
pub(crate) mod recovery;
pub mod segment;
mod writer;

pub(crate) use self::disk_queue::{Places, Spool, Wake};
pub(crate) use self::recovery::Repair;
pub use self::segment::{HEADER, Mark, Part, Segment};
pub(crate) use self::writer::SpoolWriter;
