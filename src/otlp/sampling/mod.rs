//! FACE

pub mod held;
pub mod sampler;
pub mod scenario;
pub mod settings;
pub mod threshold;
