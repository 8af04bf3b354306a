//! Where a command finds its configuration, and the flags that override it.

use std::path::PathBuf;

use crate::config::{Config, ConfigError, layers};

/// Where the configuration is, and flags that override it.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// Configuration file [default: /etc/liveqos/liveqos.toml if it exists]
    #[arg(long, value_name = "FILE", env = "LIVEQOS_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address of the status page, the API and /metrics; overrides `listen`
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Log filter such as `debug` or `info,liveqos::otlp=debug`; overrides `log.level`
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl ConfigFile {
    /// The settings from all layers.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        layers::load(self.config.as_deref(), &self.variables())
    }

    /// As [`Self::load`], without the default file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(super) fn load_only(&self) -> Result<Config, ConfigError> {
        layers::load_only(self.config.as_deref(), &self.variables())
    }

    /// The settings from environment variables, followed by those from flags, which override them.
    fn variables(&self) -> Vec<(String, String)> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("LIVEQOS_") || name.starts_with("OTEL_"));
        let flags = [("LIVEQOS_LISTEN", &self.listen), ("LIVEQOS_LOG_LEVEL", &self.log)];
        let flags = flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        environment.chain(flags).collect()
    }
}
