//! Loads the configuration from its layers: defaults, file, environment variables, flags.
//!
//! **Decides** which layer wins, which keys exist and which values are valid. Unknown keys are rejected with the most
//! similar known one. The settings of a stage stand in that stage, with the meaning of each key; `default-config`,
//! `config-schema` and docs/config.md are made from them.
//!
//! **In**: a TOML file, `LIVEQOS_*` and `OTEL_*` variables, flags.
//!
//! **Out**: one checked [`Config`].
//!
//! **May import** the settings of every stage; only `app` and `cli` import it.

pub(crate) mod layers;
pub mod reference;
mod rules;
mod settings;

pub(crate) use self::layers::ConfigError;
pub use self::settings::Config;
