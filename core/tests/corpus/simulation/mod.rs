//! Simulated nodes, classes and audiences, healthy and faulty, from seeds.
//!
//! **Decides** what a fault does to what sources report; nothing here knows how alerts are evaluated.

pub(crate) mod crowd;
pub(crate) mod dice;
pub(crate) mod faults;
pub(crate) mod named_cause;
pub(crate) mod plain_rule;
#[path = "../../support/random.rs"]
mod random;
pub(crate) mod stutter;
pub(crate) mod world;
