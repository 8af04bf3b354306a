//! Replays a recording. Invalid lines are reported with their number, counted and skipped; a truncated file is replayed
//! as far as it goes.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use liveqos_core::recording::{Event, Head, MAX_LINE, Playback, Settings};
use tokio::time::Instant;

use super::access_logs::{open, read_line};
use super::printer::Printer;
use crate::cli::output::print_progress;

/// Replays the recording at `path` with its own settings, or with `settings` if they are given.
pub(super) fn replay(path: &Path, settings: Option<Settings>, json: bool) -> Result<()> {
    let begun = Instant::now();
    let mut reader = open(path).with_context(|| format!("opening {}", path.display()))?;
    let (mut line, mut number) = (Vec::new(), 1_u64);
    read_line(&mut reader, &mut line, MAX_LINE).with_context(|| format!("reading {}", path.display()))?;
    let head = match Head::read(&line) {
        Ok(head) => head,
        Err(error) => bail!("{}: line 1: {error}", path.display()),
    };
    let mut playback = Playback::new(&head, settings);
    let mut printer = Printer { out: std::io::BufWriter::new(std::io::stdout().lock()), json };
    let (mut events, mut ticks, mut bad) = (0_u64, 0_u64, 0_u64);
    let truncated = loop {
        match read_line(&mut reader, &mut line, MAX_LINE) {
            Ok(true) => number += 1,
            Ok(false) => break None,
            Err(error) => break Some(error),
        }
        match Event::read(&line) {
            Ok(event) => {
                events += 1;
                ticks += u64::from(matches!(event, Event::Tick(_)));
                if let Some(tick) = playback.play(event) {
                    printer.show(&tick)?;
                }
            }
            Err(error) => {
                bad += 1;
                if bad <= MAX_REPORTED {
                    print_progress(&format!("{}: line {number}: {error}; skipped\n", path.display()));
                }
            }
        }
    };
    printer.out.flush()?;
    let seconds = begun.elapsed().as_secs_f64();
    let node = &head.node;
    print_progress(&format!("{events} events ({ticks} ticks) of {node:?} in {seconds:.2} s; {bad} lines skipped\n"));
    if playback.lost() > 0 {
        print_progress(&format!(
            "{} events were not recorded, so the daemon's own output may have been different\n",
            playback.lost()
        ));
    }
    match (truncated, playback.end()) {
        (Some(error), _) => print_progress(&format!("{}: truncated after line {number}: {error}\n", path.display())),
        (None, None) => print_progress("the recording has no end: the daemon was killed or is still recording\n"),
        (None, Some(true)) => print_progress("the recording ended before its daemon, at the limit of --record-bytes\n"),
        (None, Some(false)) => {}
    }
    Ok(())
}

/// Largest number of invalid lines that are reported one by one.
const MAX_REPORTED: u64 = 10;
