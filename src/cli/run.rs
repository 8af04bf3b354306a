//! `liveqos run`: the daemon under a service manager. SIGHUP reloads, SIGTERM and SIGINT stop after delivering what is
//! queued; systemd is notified of each state. An invalid new configuration is rejected and the old one stays active.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config_file::ConfigFile;
use super::output::{bad_config, fail};
use super::systemd::ServiceManager;
use crate::app::App;
use crate::config::Config;
use crate::engine::RecordTo;
use crate::intake::discover;
use crate::intake::poll::Now;
use crate::platform::{clock, log};

/// Options of the daemon.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    record: RecordTo,
}

/// Runs the daemon until it is stopped.
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
    discover_if_enabled(&mut config).await;
    let manager = ServiceManager::of_environment();
    let mut app = App::start(&config, &options.record, manager.watchdog()).await?;
    tracing::info!(address = %app.address(), sources = config.sources.len(), "watching; the status page is at http://{}/", app.address());
    if let Some(address) = app.ingest_address() {
        tracing::info!(ingest = %address, "players can report here");
    }
    if let Some(address) = app.path_address() {
        tracing::info!(paths = %address, "answering pings of other nodes (UDP)");
    }
    manager.notify(NotifyState::Ready);
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                manager.notify(NotifyState::Reloading);
                config = reload(&options.file, config, &mut app).await;
                manager.notify(NotifyState::Ready);
            }
            () = either(&mut terminate, &mut interrupt) => break,
        }
    }
    tracing::info!("stopping");
    manager.notify(NotifyState::Stopping);
    app.stop().await;
    manager.close();
    Ok(())
}

async fn reload(file: &ConfigFile, was: Config, app: &mut App) -> Config {
    let loaded = file.load().map_err(anyhow::Error::from);
    let outcome = match loaded {
        Ok(mut config) => {
            discover_if_enabled(&mut config).await;
            app.reload(&config, &was).map(|restart| (config, restart))
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok((config, restart)) => {
            if !restart.is_empty() {
                tracing::warn!("reloaded; changes of {} take effect at the next start", restart.join(", "));
            }
            tracing::info!(sources = config.sources.len(), "reloaded");
            config
        }
        Err(error) => {
            tracing::error!("not reloaded, the old settings stay active: {error:#}");
            was
        }
    }
}

async fn discover_if_enabled(config: &mut Config) {
    if config.sources.is_empty() && config.discover {
        let found = discover::sources(&now()).await;
        if found.is_empty() {
            tracing::warn!("no source is configured and no media server on this host answers; run liveqos discover");
        }
        config.sources = found;
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

fn now() -> Now {
    Arc::new(clock::now)
}

const WORKERS: usize = 2;
