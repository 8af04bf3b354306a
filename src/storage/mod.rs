//! What outlives the daemon, on disk: a journal of class and sampling state, and a spool of telemetry not yet accepted.
//!
//! - **Decides** when something counts as kept, that state and spans are kept together, what is dropped where the
//!   bounds are reached, and how a torn or damaged folder is read. Where the disk fails, the daemon continues from
//!   memory, reports it, and returns to the disk by itself.
//! - **In**: changes of class and sampling state at each tick, encoded records from otlp, `[state]` of the
//!   configuration.
//! - **Out**: [`crate::otlp::ExportQueue`]s on disk, the state found at the start, [`HealthReader`] for the API and the
//!   metrics page.
//! - **May import** platform and otlp; of core, model.

pub mod disk;
#[cfg(test)]
mod held_tests;
pub mod journal;
#[cfg(test)]
mod late_tests;
mod open;
mod settings;
pub mod spool;
mod state;
#[cfg(test)]
mod tests;
mod writer;
mod writer_queue;

pub(crate) use self::journal::PersistentState;
pub(crate) use self::open::HealthReader;
pub use self::open::Opened;
pub use self::settings::StateSettings;
pub(crate) use self::state::State;
