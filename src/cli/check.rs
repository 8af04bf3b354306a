//! `liveqos check` and `liveqos discover`: everything tried once, one line each. Decides the exit code: 0 all good, 1 something failed,
//! 2 bad configuration.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::run::runtime;
use super::style::{Colour, paint, stdout_takes_colour};
use super::{ConfigFile, FAILED, bad_config, fail, print};
use crate::clock;
use crate::config::Config;
use crate::discover;
use crate::intake::fetch::Fetcher;
use crate::intake::round::{Now, try_once};
use crate::intake::source::Source;
use crate::otlp;
use crate::place::Place;

/// Validates the configuration and tries everything in it once.
pub(super) fn run(file: &ConfigFile) -> ExitCode {
    let config = match file.load() {
        Ok(config) => config,
        Err(error) => return bad_config(&error),
    };
    let sources = match Source::all(&config.sources, liveqos_probes::KINDS) {
        Ok(sources) => sources,
        Err(error) => return bad_config(&error),
    };
    match runtime().and_then(|runtime| runtime.block_on(try_all(&config, sources))) {
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

async fn try_all(config: &Config, sources: Vec<Arc<Source>>) -> Result<bool> {
    let colour = stdout_takes_colour();
    let mut good = true;
    let mut line = |ok: bool, what: &str, detail: &str| {
        good &= ok;
        let mark = if ok { paint("ok    ", Colour::Green, colour) } else { paint("FAILED", Colour::Red, colour) };
        print(&format!("{mark}  {what}: {detail}\n"));
    };
    line(true, "configuration", &format!("{} sources, listening on {}", sources.len(), config.listen));
    let (fetcher, now): (Fetcher, Now) = (Fetcher::new()?, Arc::new(clock::now));
    for source in sources {
        let what = format!("source {} ({}, {})", source.name, source.kind.name, source.shown_url());
        match try_once(&source, &fetcher, &now).await {
            Ok(summary) => line(true, &what, &summary.to_string()),
            Err(error) => line(false, &what, &error.to_string()),
        }
    }
    for log in &config.logs {
        let what = format!("log {} ({})", log.shown_name(), log.path.display());
        match std::fs::File::open(&log.path) {
            Ok(_) => line(true, &what, "can be read"),
            Err(error) => line(false, &what, &error.to_string()),
        }
    }
    for checked in otlp::check(&config.otlp, &Place::of(config).resource(config)).await? {
        let what = format!("otlp {} to {} ({})", checked.signal.as_str(), checked.target, checked.endpoint);
        match checked.verdict {
            otlp::retry::Verdict::Delivered { .. } => line(true, &what, "taken"),
            other => line(false, &what, &format!("{other:?}")),
        }
    }
    for webhook in &config.alerts.webhooks {
        line(true, "webhook", &format!("{} is set (not called: it would wake people)", host(&webhook.url)));
    }
    Ok(good)
}

fn host(url: &str) -> String {
    let parsed = reqwest::Url::parse(url).ok();
    parsed.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "(no URL)".to_owned())
}
