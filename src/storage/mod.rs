//! FACE

pub mod disk;
#[cfg(test)]
mod held_tests;
pub mod journal;
#[cfg(test)]
mod late_tests;
mod open;
pub mod settings;
pub mod spool;
pub mod state;
#[cfg(test)]
mod tests;
mod writer;
