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
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::hooks::{HookAnswer, HookIntake};
pub(crate) use self::observations::Observations;
pub use self::source::SourceTable;
pub(crate) use self::source::{RoundReport, Source, SourceEntry, SourceSettings, SourceState, SourceStatus};
