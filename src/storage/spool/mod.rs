//! Queues of telemetry records on disk, one for each target and signal.
//!
//! - **Decides** when a record is visible to the sender (once it is kept), which segments are removed, and where a
//!   queue begins and ends after a restart.
//! - **In**: encoded records from otlp, positions up to which the journal is kept.
//! - **Out**: batches for the senders of otlp, segment files and a cursor file in a [`super::disk::Disk`].
//! - **May import** otlp and its parent.

mod disk_queue;
mod late_found;
mod queue;
pub(crate) mod recovery;
pub mod segment;
mod writer;

pub(crate) use self::disk_queue::{Spool, TargetMarks, Wake};
pub(crate) use self::recovery::Repair;
pub use self::segment::{HEADER, Mark, Part, Segment};
pub use self::writer::CURSOR_SALT;
pub(crate) use self::writer::SpoolWriter;
