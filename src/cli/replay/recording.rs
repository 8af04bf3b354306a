//! A recording through the rules once more. Decides what is said of one that is torn or damaged: each line that is not
//! good is told with its number and counted, and the rest goes on.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use liveqos_core::recording::{Event, Head, MAX_LINE, Playback, Settings};
use tokio::time::Instant;

use super::access_logs::{open, read_line};
use super::command::say;
use super::printer::Printer;

/// Replays the recording at `path`, judged by `settings` where they are given.
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
    let mut teller = Printer { out: std::io::BufWriter::new(std::io::stdout().lock()), json };
    let (mut words, mut ticks, mut bad) = (0_u64, 0_u64, 0_u64);
    let torn = loop {
        match read_line(&mut reader, &mut line, MAX_LINE) {
            Ok(true) => number += 1,
            Ok(false) => break None,
            Err(error) => break Some(error),
        }
        match Event::read(&line) {
            Ok(word) => {
                words += 1;
                ticks += u64::from(matches!(word, Event::Tick(_)));
                if let Some(tick) = playback.play(word) {
                    teller.show(&tick)?;
                }
            }
            Err(error) => {
                bad += 1;
                if bad <= MOST_TOLD {
                    say(&format!("{}: line {number}: {error}; left out\n", path.display()));
                }
            }
        }
    };
    teller.out.flush()?;
    let seconds = begun.elapsed().as_secs_f64();
    let node = &head.node;
    say(&format!("{words} words and {ticks} ticks of {node:?} in {seconds:.2} s; {bad} lines left out\n"));
    if playback.lost() > 0 {
        say(&format!("{} words were not recorded, so what was said then may differ\n", playback.lost()));
    }
    match (torn, playback.end()) {
        (Some(error), _) => say(&format!("{}: torn after line {number}: {error}\n", path.display())),
        (None, None) => say("it has no end: the daemon was killed, or records still\n"),
        (None, Some(true)) => say("it ends before its daemon, because it was full (--record-bytes)\n"),
        (None, Some(false)) => {}
    }
    Ok(())
}

/// Bad lines that are told one by one.
const MOST_TOLD: u64 = 10;
