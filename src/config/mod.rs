//! FACE

pub(crate) mod layers;
pub mod reference;
mod rules;
mod settings;

pub(crate) use self::layers::ConfigError;
pub use self::settings::Config;
