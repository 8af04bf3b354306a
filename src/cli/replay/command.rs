//! `liveqos replay`: access logs, or what a daemon recorded, through the rules of live operation, with the time of the
//! lines as the clock. Decides by its first line what a file is; what comes out is what the daemon would have said, or
//! has said.

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
use crate::cli::arguments::{ConfigFile, bad_config, fail};
use crate::config::Config;
use crate::engine::recorder::is_recording;

/// What a replay may be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Access logs, plain or .gz, several are joined by their instants; or one recording (`--record` of run and demo)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One JSON object a sample, and one {"notice":...} an alert
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
            ensure!(options.files.len() == 1, "{} is a recording: it is replayed alone", path.display());
            // What the recording was judged by holds, unless a file is named.
            let named = options.file.config.is_some().then(|| config.settings());
            return super::recording::replay(path, named, options.json);
        }
    }
    // The table of this file, else the first one: a log on another machine has the same form under another path.
    let settings = config.logs.iter().find(|log| options.files.contains(&log.path)).or(config.logs.first());
    let settings = settings.cloned().unwrap_or_default();
    let fold = settings.fold(settings.viewer_key()?)?;
    let pipe = Pipeline::new(&config.node.name, config.promised(), config.patience(), config.sessions.max);
    let out = std::io::BufWriter::new(std::io::stdout().lock());
    let teller = Printer { out, json: options.json };
    let mut player = Player { fold, pipe, next: None, teller, grace: config.sessions.identity_grace };
    let mut inputs = Inputs::open(&options.files)?;
    let started = Instant::now();
    let mut bytes = 0_u64;
    let shows = std::io::stderr().is_terminal();
    while let Some(line) = inputs.next(&player.fold)? {
        let before = bytes;
        bytes += line.len() as u64;
        if line.len() > MAX_LINE {
            player.fold.count_too_long();
        } else {
            player.line(line)?;
        }
        if shows && before / PROGRESS_BYTES != bytes / PROGRESS_BYTES {
            write!(std::io::stderr(), "\r{} MB", bytes / 1_000_000).unwrap_or_default();
        }
    }
    player.end()?;
    player.teller.out.flush()?;
    let seconds = started.elapsed().as_secs_f64();
    say(&summary(&player.fold, seconds));
    Ok(())
}

/// The rules, driven by the log's time.
struct Player<W> {
    fold: LogFold,
    pipe: Pipeline,
    next: Option<Timestamp>,
    teller: Printer<W>,
    grace: std::time::Duration,
}

impl<W: Write> Player<W> {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        // What is wrong with a line is counted and stands in the summary.
        if let Ok(Some(opened)) = self.fold.parse(line) {
            self.advance(opened.logged)?;
            self.fold.fold(&opened).unwrap_or_default();
        }
        Ok(())
    }

    /// Ticks up to `at`. Over a gap of the log nothing happens, so it is jumped.
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
        self.teller.show(&tick)
    }

    /// The last words, and the cut after them.
    fn end(&mut self) -> Result<()> {
        let Some(next) = self.next else {
            return Ok(());
        };
        for observation in self.fold.finish(next) {
            self.pipe.observe(observation);
        }
        let tick = self.pipe.tick(next, &Environment::default());
        self.teller.show(&tick)?;
        // The next one opens what is new and cuts; what is that new only after its grace.
        let is_new = self.pipe.registry().sessions().next().is_none();
        let settled = if is_new { next + self.grace } else { next };
        let tick = self.pipe.tick(settled.floor(GRID) + GRID, &Environment::default());
        self.teller.show(&tick)
    }
}

fn summary(fold: &LogFold, seconds: f64) -> String {
    let (lines, other, dirty, counts) = fold.counts();
    let (viewers, sessions) = fold.sizes();
    let rate = lines as f64 / seconds.max(1e-6);
    format!(
        "{lines} lines in {seconds:.2} s ({rate:.0} lines/s), {} requests, {} events, {other} other\n\
         left out: {} of another form, {} without an instant, {} too long, {} of a newer cmcd, {} cmcd values, {} events repeated, {} events of \
         unknown viewers; {} events never came\n\
         at the end: {sessions} sessions, {viewers} viewers; refused: {} for sessions, {} for viewers; made room: {} sessions, {} viewers\n",
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

pub(super) fn say(text: &str) {
    // Nobody is left to tell when standard error is closed.
    std::io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Longest span without a line that is gone through tick by tick.
const LONGEST_GAP: std::time::Duration = std::time::Duration::from_mins(10);
const PROGRESS_BYTES: u64 = 16_000_000;
