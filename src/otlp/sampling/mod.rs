//! FACE

mod held;
mod sampler;
mod scenario;
mod settings;
mod threshold;

pub(crate) use self::held::{Change, Holding};
pub(crate) use self::sampler::Counts;
pub use self::sampler::Sampling;
pub use self::settings::SamplingSettings;
pub use self::threshold::{Randomness, Threshold};
