//! How the outside reaches liveqos. Every way in ends in the same bounded channel of observations.

pub mod fetch;
pub mod hooks;
pub mod login;
pub mod pace;
pub mod poll;
pub mod round;
pub mod source;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
