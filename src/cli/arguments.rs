//! The commands. Decides what each prints and its exit code (0 good, 1 something failed, 2 bad configuration or
//! arguments); the work is done elsewhere.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use super::{check, demo, probe, replay, top};
use crate::config::{Config, ConfigError, layers, reference};

/// Tells the truth about every live class on a media server or CDN edge.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon; without a file: embedded defaults, and the media servers found on this host
    Run(super::run::Options),
    /// A live class on loopback: real WebRTC media, a scripted fault, the page, the alert
    Demo(demo::Options),
    /// Validate the configuration, try each source and exporter once, one line each
    Check(check::Options),
    /// Find media servers on this host and print a configuration for them
    Discover,
    /// One synthetic viewer, like ping for a class or a path; exit 1 when the objective is missed
    #[command(subcommand)]
    Probe(probe::Target),
    /// Recorded access logs, or what a daemon recorded, through the same rules: what was or would have been said
    Replay(replay::Options),
    /// The node in a terminal
    Top(top::Options),
    /// Print the embedded defaults as an annotated configuration file
    DefaultConfig,
    /// Print the JSON Schema of the configuration file
    ConfigSchema,
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// Where the configuration is, and the flags that win over it.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// Configuration file [default: /etc/liveqos/liveqos.toml where it exists]
    #[arg(long, value_name = "FILE", env = "LIVEQOS_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address of the page, the API and /metrics, over `listen` of the file
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Log filter such as `debug` or `info,liveqos::otlp=debug`, over `log.level` of the file
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

    /// The same without the default file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(super) fn load_only(&self) -> Result<Config, ConfigError> {
        layers::load_only(self.config.as_deref(), &self.variables())
    }

    /// What the environment says of settings, the flags after it so that they win.
    fn variables(&self) -> Vec<(String, String)> {
        let told = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("LIVEQOS_") || name.starts_with("OTEL_"));
        let flags = [("LIVEQOS_LISTEN", &self.listen), ("LIVEQOS_LOG_LEVEL", &self.log)];
        let flags = flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        told.chain(flags).collect()
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

/// Prints to standard output; a reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Says on standard error what failed.
pub(crate) fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::from(FAILED)
}

/// Says on standard error what is wrong with the configuration.
pub(crate) fn bad_config(error: &dyn std::fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::from(BAD_CONFIG)
}

fn complain(error: &dyn std::fmt::Display) {
    // Nobody is left to tell when standard error is closed.
    writeln!(std::io::stderr(), "liveqos: {error}").unwrap_or_default();
}

/// Exit code when something failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code for a bad configuration; clap uses the same for bad arguments.
pub(crate) const BAD_CONFIG: u8 = 2;
