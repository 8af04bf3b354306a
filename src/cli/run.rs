//! `liveqos run`: the daemon under a service manager. Decides on signals (SIGHUP reloads, SIGTERM and SIGINT drain) and
//! tells systemd how it does; refuses a bad new configuration and keeps the old one.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::arguments::{ConfigFile, bad_config, fail};
use super::systemd::Manager;
use crate::app::App;
use crate::config::Config;
use crate::engine::RecordTo;
use crate::intake::discover;
use crate::intake::poll::Now;
use crate::platform::{clock, log};

/// What the daemon may be told.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    record: RecordTo,
}

/// Runs the daemon until it is told to stop.
pub(super) fn run(options: &Options) -> ExitCode {
    let config = match options.file.load() {
        Ok(config) => config,
        Err(error) => return bad_config(&error),
    };
    if let Err(error) = log::start(&config.log) {
        return bad_config(&error);
    }
    match runtime().and_then(|runtime| runtime.block_on(daemon(options, config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// The runtime of the shell: few threads, since the work is small and the node belongs to its media server.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).thread_name("shell").enable_all().build().context("starting the runtime")
}

async fn daemon(options: &Options, mut config: Config) -> Result<()> {
    let (mut hangup, mut terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    let mut interrupt = signal(SignalKind::interrupt())?;
    discover_if_asked(&mut config).await;
    let manager = Manager::of_environment();
    let mut app = App::start(&config, &options.record, manager.heartbeat()).await?;
    tracing::info!(address = %app.address(), sources = config.sources.len(), "watching; the page is at http://{}/", app.address());
    if let Some(address) = app.ingest_address() {
        tracing::info!(ingest = %address, "players may report here");
    }
    if let Some(address) = app.path_address() {
        tracing::info!(paths = %address, "pings of other nodes are answered here (UDP)");
    }
    manager.tell(NotifyState::Ready);
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                manager.tell(NotifyState::Reloading);
                config = reload(&options.file, config, &mut app).await;
                manager.tell(NotifyState::Ready);
            }
            () = any(&mut terminate, &mut interrupt) => break,
        }
    }
    tracing::info!("stopping");
    manager.tell(NotifyState::Stopping);
    app.stop().await;
    manager.close();
    Ok(())
}

async fn reload(file: &ConfigFile, was: Config, app: &mut App) -> Config {
    let loaded = file.load().map_err(anyhow::Error::from);
    let taken = match loaded {
        Ok(mut config) => {
            discover_if_asked(&mut config).await;
            app.reload(&config, &was).map(|restart| (config, restart))
        }
        Err(error) => Err(error),
    };
    match taken {
        Ok((config, restart)) => {
            if !restart.is_empty() {
                tracing::warn!("reloaded; {} take effect at the next start", restart.join(", "));
            }
            tracing::info!(sources = config.sources.len(), "reloaded");
            config
        }
        Err(error) => {
            tracing::error!("not reloaded, the old settings stay: {error:#}");
            was
        }
    }
}

async fn discover_if_asked(config: &mut Config) {
    if config.sources.is_empty() && config.discover {
        let found = discover::sources(&now()).await;
        if found.is_empty() {
            tracing::warn!("no source is configured and no media server answers on this host; see liveqos discover");
        }
        config.sources = found;
    }
}

async fn any(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

fn now() -> Now {
    Arc::new(clock::now)
}

const WORKERS: usize = 2;
