//! Every way in: media servers asked and heard, the kernel's word on viewers' connections, the node's own load. Decides
//! how each is asked; all end in the same bounded channel of observations, and none judges what it hears.

pub mod access_log;
pub(crate) mod discover;
mod hooks;
pub mod kernel;
pub(crate) mod node;
mod observations;
pub(crate) mod poll;
mod source;
mod source_status;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::hooks::{HookAnswer, HookIntake};
pub(crate) use self::observations::Observations;
pub(crate) use self::source::{Source, SourceSettings};
pub use self::source_status::SourceTable;
pub(crate) use self::source_status::{RoundReport, SourceEntry, SourceState, SourceStatus};
