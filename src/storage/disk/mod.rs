//! The few file operations that storage needs, behind a trait that tests replace, and the format of its records.
//!
//! - **Decides** file modes, how a file is replaced, and what a valid record is.
//! - **In**: a folder of the file system, or a disk of a test that forgets what was not synced.
//! - **Out**: [`Disk`], and [`frame`] for journal, segments, cursors and the positions of access logs.
//! - **May import** nothing of the shell.

mod folder;
#[cfg(test)]
mod forgetful;
pub mod frame;

pub(crate) use self::folder::NEW;
pub use self::folder::{Appender, Disk, Folder};
#[cfg(test)]
pub(crate) use self::forgetful::Forgetful;
pub(crate) use self::frame::{Frame, MAX_PAYLOAD, Step};
