//! The arguments of the program, and which command each selects.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use super::output::{fail, print};
use super::{check, demo, probe, replay, top};
use crate::config::reference;

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
