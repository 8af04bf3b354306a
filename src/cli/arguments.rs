//! The arguments of all commands, and the exit codes: 0 success, 1 something failed, 2 invalid configuration or
//! arguments.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use super::{check, demo, probe, replay, top};
use crate::config::{Config, ConfigError, layers, reference};

/// Measure the quality of every live class on a media server or CDN edge
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon; without a configuration it watches the media servers found on this host
    Run(super::run::Options),
    /// Run a demonstration class on loopback with real WebRTC media, scripted faults, alerts and the status page
    Demo(demo::Options),
    /// Validate the configuration and try each source, log and exporter once
    Check(check::Options),
    /// Find media servers on this host and print a configuration for them
    Discover,
    /// Ping a path like a synthetic viewer; exit with 1 if the objective is missed
    #[command(subcommand)]
    Probe(probe::Target),
    /// Replay access logs or a recording through the rules and print the samples and alerts
    Replay(replay::Options),
    /// Show this node's classes in the terminal
    Top(top::Options),
    /// Print the default configuration with comments
    DefaultConfig,
    /// Print the JSON Schema of the configuration file
    ConfigSchema,
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

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

/// Runs the command.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Run(options) => super::run::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Discover => check::discover(),
        Command::Probe(target) => probe::run(&target),
        Command::Replay(options) => replay::run(&options),
        Command::Top(options) => top::run(&options),
        Command::DefaultConfig => print(&reference::default_toml()),
        Command::ConfigSchema => print(&format!("{:#}\n", reference::json_schema())),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "liveqos", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Command::Man => {
            let mut text = Vec::new();
            match clap_mangen::Man::new(Arguments::command()).render(&mut text) {
                Ok(()) => print(&String::from_utf8_lossy(&text)),
                Err(error) => fail(&error),
            }
        }
    }
}

/// Prints to standard output. A closed pipe (`| head`) is not a failure.
pub(crate) fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints a failure to standard error.
pub(crate) fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    print_error(error);
    ExitCode::from(FAILED)
}

/// Prints an invalid configuration to standard error.
pub(crate) fn bad_config(error: &dyn std::fmt::Display) -> ExitCode {
    print_error(error);
    ExitCode::from(BAD_CONFIG)
}

fn print_error(error: &dyn std::fmt::Display) {
    // With standard error closed there is nowhere to report this.
    writeln!(std::io::stderr(), "liveqos: {error}").unwrap_or_default();
}

/// Exit code when something failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code for an invalid configuration; clap uses the same for invalid arguments.
pub(crate) const BAD_CONFIG: u8 = 2;
