//! `liveqos replay`: access logs or a recording through the rules of live operation, with the lines' timestamps as the
//! clock. The output is what the daemon would have reported, or has reported.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use liveqos_core::access_log::{LogFold, MAX_LINE};
use liveqos_core::model::{Environment, GRID, TICK, Timestamp};
use liveqos_core::pipeline::Pipeline;
use tokio::time::Instant;

use super::access_logs::Inputs;
use super::printer::Printer;
use crate::cli::config_file::ConfigFile;
use crate::cli::output::{bad_config, fail, print_progress};
use crate::config::Config;
use crate::engine::is_recording;

/// Options of a replay.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Access logs, plain or .gz, merged by their timestamps; or one recording (`--record` of run and demo)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object per sample, and {"notice":...} per alert
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Replays the files.
pub(crate) fn run(options: &Options) -> ExitCode {
    let config = match options.file.load() {
        Ok(config) => config,
        Err(error) => return bad_config(&error),
    };
    match replay(options, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn replay(options: &Options, config: &Config) -> Result<()> {
    for path in &options.files {
        if is_recording(path).with_context(|| format!("opening {}", path.display()))? {
            ensure!(options.files.len() == 1, "{} is a recording: replay it alone", path.display());
            // Without a named configuration the recording's own settings apply.
            let named = options.file.config.is_some().then(|| config.rule_settings());
            return super::recording::replay(path, named, options.json);
        }
    }
    // The `[[logs]]` table of this file, otherwise the first one: a log copied from another machine has another path
    // and the same format.
    let settings = config.logs.iter().find(|log| options.files.contains(&log.path)).or(config.logs.first());
    let settings = settings.cloned().unwrap_or_default();
    let fold = settings.fold(settings.viewer_key()?)?;
    let pipe = Pipeline::new(&config.node.name, config.objectives(), config.timeouts(), config.sessions.max);
    let out = std::io::BufWriter::new(std::io::stdout().lock());
    let printer = Printer { out, json: options.json };
    let mut player = Player { fold, pipe, next: None, printer, grace: config.sessions.identity_grace };
    let mut inputs = Inputs::open(&options.files)?;
    let started = Instant::now();
    let mut bytes = 0_u64;
    let shows_progress = std::io::stderr().is_terminal();
    while let Some(line) = inputs.next(&player.fold)? {
        let before = bytes;
        bytes += line.len() as u64;
        if line.len() > MAX_LINE {
            player.fold.count_too_long();
        } else {
            player.line(line)?;
        }
        if shows_progress && before / PROGRESS_BYTES != bytes / PROGRESS_BYTES {
            write!(std::io::stderr(), "\r{} MB", bytes / 1_000_000).unwrap_or_default();
        }
    }
    player.end()?;
    player.printer.out.flush()?;
    let seconds = started.elapsed().as_secs_f64();
    print_progress(&summary(&player.fold, seconds));
    Ok(())
}

/// The rules, driven by the log's time.
struct Player<W> {
    fold: LogFold,
    pipe: Pipeline,
    next: Option<Timestamp>,
    printer: Printer<W>,
    grace: std::time::Duration,
}

impl<W: Write> Player<W> {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        // Invalid lines are counted and appear in the summary.
        if let Ok(Some(opened)) = self.fold.parse(line) {
            self.advance(opened.logged)?;
            self.fold.fold(&opened).unwrap_or_default();
        }
        Ok(())
    }

    /// Ticks up to `at`. A gap in the log, in which nothing happens, is skipped.
    fn advance(&mut self, at: Timestamp) -> Result<()> {
        let mut next = *self.next.get_or_insert(at.floor(TICK) + TICK);
        if at.since(next) > LONGEST_GAP {
            self.tick(next + GRID)?;
            next = at.floor(TICK);
        }
        while next <= at {
            self.tick(next)?;
            next = next + TICK;
        }
        self.next = Some(next);
        Ok(())
    }

    fn tick(&mut self, now: Timestamp) -> Result<()> {
        for observation in self.fold.drain(now) {
            self.pipe.observe(observation);
        }
        let tick = self.pipe.tick(now, &Environment::default());
        self.printer.show(&tick)
    }

    /// Evaluates the remaining observations and cuts the last sample.
    fn end(&mut self) -> Result<()> {
        let Some(next) = self.next else {
            return Ok(());
        };
        for observation in self.fold.finish(next) {
            self.pipe.observe(observation);
        }
        let tick = self.pipe.tick(next, &Environment::default());
        self.printer.show(&tick)?;
        // The next tick opens new classes and cuts; a class is still new until its grace has passed.
        let is_new = self.pipe.registry().sessions().next().is_none();
        let settled = if is_new { next + self.grace } else { next };
        let tick = self.pipe.tick(settled.floor(GRID) + GRID, &Environment::default());
        self.printer.show(&tick)
    }
}

fn summary(fold: &LogFold, seconds: f64) -> String {
    let (lines, other, dirty, counts) = fold.counts();
    let (viewers, sessions) = fold.sizes();
    let rate = lines as f64 / seconds.max(1e-6);
    format!(
        "{lines} lines in {seconds:.2} s ({rate:.0} lines/s), {} requests, {} events, {other} other\n\
         skipped: {} of another format, {} without a timestamp, {} too long, {} of a newer CMCD version, {} CMCD values, {} events repeated, {} events of \
         unknown viewers; {} events were lost\n\
         at the end: {sessions} sessions, {viewers} viewers; over the limit: {} sessions, {} viewers; displaced: {} sessions, {} viewers\n",
        counts.requests,
        counts.events,
        dirty.form,
        dirty.time,
        dirty.long,
        dirty.version,
        dirty.values,
        counts.repeated,
        counts.unmatched,
        counts.lost,
        counts.refused_sessions,
        counts.refused_viewers,
        counts.displaced_sessions,
        counts.displaced_viewers
    )
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Longest span without a line that is replayed tick by tick.
const LONGEST_GAP: std::time::Duration = std::time::Duration::from_mins(10);
const PROGRESS_BYTES: u64 = 16_000_000;
