//! FACE

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

pub(crate) use self::journal::Lasting;
pub use self::open::Opened;
pub(crate) use self::open::Watch;
pub use self::settings::StateSettings;
pub(crate) use self::state::State;
