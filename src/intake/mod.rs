//! Reads media servers, access logs, the kernel and the node's load, and turns them into observations.
//!
//! **Decides** how each input is read: how often a server is polled, which part of a log is new, which sockets the
//! kernel is asked for. It does not judge what the values mean.
//!
//! **In**: status interfaces of media servers (`poll`), hooks that they post (`hooks`), access logs and event reports
//! of players (`access_log`), TCP connections from the kernel (`kernel`), `/proc` and `/sys` (`node`). `discover` finds
//! media servers on this host; `source` holds what is configured and known of each.
//!
//! **Out**: every intake ends in the one bounded queue of `observations`, which the engine reads; the status of each
//! source goes to the API, the metrics and the alert rules.
//!
//! **May import** `platform` and `storage` (a log's position is a storage record).

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
