//! `liveqos check` and `liveqos discover`: try everything once, one line each. Exit code: 0 all good, 1 something
//! failed, 2 invalid configuration.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::config_file::ConfigFile;
use super::output::{FAILED, bad_config, fail, print};
use super::run::runtime;
use super::style::{Colour, paint, stdout_supports_colour};
use super::{check_logs, check_paths};
use crate::app::NodeIdentity;
use crate::config::Config;
use crate::intake::poll::{HttpClient, Now, try_once};
use crate::intake::{Source, discover};
use crate::otlp::retry;
use crate::platform::{clock, tls};
use crate::{notify, otlp};

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Send a test alert and its resolution to every receiver
    #[arg(long)]
    notify: bool,
}

/// Validates the configuration and tries everything in it once.
pub(super) fn run(options: &Options) -> ExitCode {
    let config = match options.file.load() {
        Ok(config) => config,
        Err(error) => return bad_config(&error),
    };
    let sources = match Source::all(&config.sources, liveqos_probes::KINDS) {
        Ok(sources) => sources,
        Err(error) => return bad_config(&error),
    };
    match runtime().and_then(|runtime| runtime.block_on(try_all(&config, sources, options.notify))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Prints a configuration for the media servers of this host.
pub(super) fn discover() -> ExitCode {
    match runtime().map(|runtime| runtime.block_on(discover::report(&(Arc::new(clock::now) as Now)))) {
        Ok(text) => print(&text),
        Err(error) => fail(&format!("{error:#}")),
    }
}

async fn try_all(config: &Config, sources: Vec<Arc<Source>>, notify: bool) -> Result<bool> {
    let colour = stdout_supports_colour();
    let mut good = true;
    let mut line = |ok: bool, what: &str, detail: &str| {
        good &= ok;
        let mark = if ok { paint("ok    ", Colour::Green, colour) } else { paint("FAILED", Colour::Red, colour) };
        print(&format!("{mark}  {what}: {detail}\n"));
    };
    line(true, "configuration", &format!("{} sources, listening on {}", sources.len(), config.listen));
    let (fetcher, now): (HttpClient, Now) = (HttpClient::new()?, Arc::new(clock::now));
    for source in sources {
        let what = format!("source {} ({}, {})", source.name, source.kind.name, source.shown_url());
        match try_once(&source, &fetcher, &now).await {
            Ok(summary) => line(true, &what, &summary.to_string()),
            Err(error) => line(false, &what, &error.to_string()),
        }
    }
    for log in &config.logs {
        let address = if log.listen.is_empty() { log.path.display().to_string() } else { log.listen.clone() };
        let what = format!("log {} ({address})", log.shown_name());
        match check_logs::check(log) {
            Ok(detail) => line(true, &what, &detail),
            Err(detail) => line(false, &what, &detail),
        }
    }
    match tls::server(&config.ingest.tls) {
        Ok(Some(_)) => line(true, "ingest.tls", "certificate and key match"),
        Ok(None) => {}
        Err(error) => line(false, "ingest.tls", &error.to_string()),
    }
    for (ok, what, detail) in check_paths::check(&config.paths).await {
        line(ok, &what, &detail);
    }
    for checked in otlp::check(&config.otlp, &NodeIdentity::of(config).resource(config)).await? {
        let what = format!("otlp {} to {} ({})", checked.signal.as_str(), checked.target, checked.endpoint);
        match checked.verdict {
            retry::Verdict::Delivered { .. } => line(true, &what, "accepted"),
            other => line(false, &what, &format!("{other:?}")),
        }
    }
    let context = NodeIdentity::of(config).alert_context(config);
    for receiver in &config.alerts.webhooks {
        let what = format!("receiver {}", receiver.shown());
        if !notify {
            line(true, &what, "is configured (no test alert is sent without --notify)");
            continue;
        }
        match notify::try_once(receiver, &context, clock::now()).await {
            Ok(()) => line(true, &what, "accepted a test alert and its resolution"),
            Err(why) => line(false, &what, &why),
        }
    }
    Ok(good)
}
