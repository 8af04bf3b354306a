//! `liveqos replay`: recorded access logs through the rules of live operation, with the log's own time as the clock. Decides only the
//! order of lines of several files; what comes out is what the daemon would have said.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use liveqos_core::judge::Surroundings;
use liveqos_core::log_fold::{LogFold, MAX_LINE};
use liveqos_core::pipe::{Beat, Pipe};
use liveqos_core::sample::Sample;
use liveqos_core::time::{BEAT, GRID, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use super::{ConfigFile, bad_config, fail, top};
use crate::config::Config;
use crate::rfc3339;
use crate::snapshot::sample_json;

/// What a replay may be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Access logs, plain or .gz; several are joined by their instants
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One JSON object a sample
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Replays the files.
pub(super) fn run(options: &Options) -> ExitCode {
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
    // The table of this file, else the first one: a log on another machine has the same form under another path.
    let settings = config.logs.iter().find(|log| options.files.contains(&log.path)).or(config.logs.first());
    let settings = settings.cloned().unwrap_or_default();
    let fold = settings.fold(settings.viewer_key()?)?;
    let pipe = Pipe::new(&config.node.name, config.promised(), config.patience(), config.sessions.max);
    let out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut player = Player { fold, pipe, next: None, out, json: options.json, grace: config.sessions.identity_grace };
    let mut inputs = Inputs::open(&options.files)?;
    let started = Instant::now();
    let mut bytes = 0_u64;
    let shows = std::io::stderr().is_terminal();
    while let Some(line) = inputs.next(&player.fold)? {
        let before = bytes;
        bytes += line.len() as u64;
        if line.len() > MAX_LINE {
            player.fold.too_long();
        } else {
            player.line(line)?;
        }
        if shows && before / PROGRESS_BYTES != bytes / PROGRESS_BYTES {
            write!(std::io::stderr(), "\r{} MB", bytes / 1_000_000).unwrap_or_default();
        }
    }
    player.end()?;
    player.out.flush()?;
    let seconds = started.elapsed().as_secs_f64();
    say(&summary(&player.fold, seconds));
    Ok(())
}

/// The rules, driven by the log's time.
struct Player<W> {
    fold: LogFold,
    pipe: Pipe,
    next: Option<Timestamp>,
    out: W,
    json: bool,
    grace: std::time::Duration,
}

impl<W: Write> Player<W> {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        // What is wrong with a line is counted and stands in the summary.
        if let Ok(Some(opened)) = self.fold.open(line) {
            self.advance(opened.logged)?;
            self.fold.fold(&opened).unwrap_or_default();
        }
        Ok(())
    }

    /// Beats up to `at`. Over a gap of the log nothing happens, so it is jumped.
    fn advance(&mut self, at: Timestamp) -> Result<()> {
        let mut next = *self.next.get_or_insert(at.floor(BEAT) + BEAT);
        if at.since(next) > LONGEST_GAP {
            self.beat(next + GRID)?;
            next = at.floor(BEAT);
        }
        while next <= at {
            self.beat(next)?;
            next = next + BEAT;
        }
        self.next = Some(next);
        Ok(())
    }

    fn beat(&mut self, now: Timestamp) -> Result<()> {
        for observation in self.fold.drain(now) {
            self.pipe.observe(observation);
        }
        let beat = self.pipe.beat(now, &Surroundings::default());
        self.show(&beat)
    }

    /// The last words, and the cut after them.
    fn end(&mut self) -> Result<()> {
        let Some(next) = self.next else {
            return Ok(());
        };
        for observation in self.fold.finish(next) {
            self.pipe.observe(observation);
        }
        let beat = self.pipe.beat(next, &Surroundings::default());
        self.show(&beat)?;
        // The next one opens what is new and cuts; what is that new only after its grace.
        let is_new = self.pipe.registry().sessions().next().is_none();
        let settled = if is_new { next + self.grace } else { next };
        let beat = self.pipe.beat(settled.floor(GRID) + GRID, &Surroundings::default());
        self.show(&beat)
    }

    fn show(&mut self, beat: &Beat) -> Result<()> {
        for notice in &beat.notices {
            if !self.json {
                writeln!(self.out, "{}  {:?} {}", rfc3339::text(notice.at), notice.state, notice.summary())?;
            }
        }
        for sample in &beat.batch.samples {
            self.sample(sample)?;
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample) -> Result<()> {
        let session = &sample.session;
        if self.json {
            let mut value = sample_json(sample);
            value["session_id"] = json!(session.id);
            value["stream"] = json!(session.stream);
            serde_json::to_writer(&mut self.out, &value).map_err(std::io::Error::from)?;
            return Ok(writeln!(self.out)?);
        }
        Ok(writeln!(self.out, "{}  {:24} {}", rfc3339::text(sample.window.end), session.id, top::line(sample))?)
    }
}

/// The files, read line by line in the order of their instants.
struct Inputs {
    inputs: Vec<Input>,
    taken: Option<usize>,
}

struct Input {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    at: Timestamp,
    full: bool,
}

impl Inputs {
    fn open(files: &[PathBuf]) -> Result<Self> {
        let inputs = files.iter().map(|path| Input::open(path).with_context(|| format!("opening {}", path.display())));
        Ok(Self { inputs: inputs.collect::<Result<_>>()?, taken: None })
    }

    fn next(&mut self, fold: &LogFold) -> Result<Option<&[u8]>> {
        let joins = self.inputs.len() > 1;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            if input.full && self.taken == Some(index) {
                input.full = false;
            }
            if !input.full {
                input.full = read_line(&mut input.reader, &mut input.line)?;
                if joins && input.full {
                    // A line without an instant goes where its neighbour went.
                    input.at = fold.time_of(&input.line).unwrap_or(input.at);
                }
            }
        }
        let full = self.inputs.iter().enumerate().filter(|(_, input)| input.full);
        self.taken = full.min_by_key(|(_, input)| input.at).map(|(index, _)| index);
        Ok(self.taken.map(|index| self.inputs[index].line.as_slice()))
    }
}

impl Input {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let packed = path.extension().is_some_and(|ending| ending == "gz");
        let reader: Box<dyn BufRead> = if packed {
            Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(BufReader::new(file))))
        } else {
            Box::new(BufReader::with_capacity(BUFFER, file))
        };
        Ok(Self { reader, line: Vec::new(), at: Timestamp::default(), full: false })
    }
}

/// Reads one line into `line`; of a longer one than [`MAX_LINE`] no more than one byte over is kept. False at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    reader.by_ref().take(MAX_LINE as u64 + 2).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > MAX_LINE {
        reader.skip_until(b'\n')?;
    } else {
        return Ok(!line.is_empty());
    }
    Ok(true)
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
        counts.homeless,
        counts.lost,
        counts.refused_sessions,
        counts.refused_viewers,
        counts.displaced_sessions,
        counts.displaced_viewers
    )
}

fn say(text: &str) {
    // Nobody is left to tell when standard error is closed.
    std::io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Longest span without a line that is gone through beat by beat.
const LONGEST_GAP: std::time::Duration = std::time::Duration::from_mins(10);
const PROGRESS_BYTES: u64 = 16_000_000;
const BUFFER: usize = 1 << 18;
