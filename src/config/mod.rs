//! FACE

pub(crate) mod layers;
pub mod reference;
mod settings;

pub(crate) use self::layers::ConfigError;
pub use self::settings::Config;
pub(crate) use self::settings::{LogFormat, LogSettings};
