//! Follows access logs, each on a thread of its own, and hands on what they told: at most one observation a class and beat. Decides only
//! the order: read, fold, drain, hand on, write down how far; refuses to wait for a reader that is behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use liveqos_core::log_fold::LogFold;
use liveqos_core::time::BEAT;
use tokio::time::Instant;

use super::log_settings::AccessLogSettings;
use super::log_tail::{LogTail, Piece};
use super::poll::{Observations, hand_on};
use super::round::streams;
use super::status::{RoundReport, SourceEntry};
use crate::clock;
use crate::meters::Meters;

/// Begins to follow one log, until `stopping` is set or nobody reads any more.
///
/// # Errors
/// When its settings or its position file are bad, or the thread cannot be started.
pub fn start(
    settings: &AccessLogSettings,
    entry: Option<Arc<SourceEntry>>,
    out: Observations,
    meters: Meters,
    stopping: Arc<AtomicBool>,
) -> Result<()> {
    let tail = LogTail::new(&settings.path, settings.position_file.as_deref());
    let tail = tail.with_context(|| format!("reading the position of log \"{}\"", settings.shown_name()))?;
    let fold = settings.fold(settings.viewer_key()?)?;
    let Some(entry) = entry else {
        return Ok(());
    };
    let follower = Follower { tail, fold, entry, out, meters };
    std::thread::Builder::new().name("access-log".to_owned()).spawn(move || follower.run(&stopping))?;
    Ok(())
}

struct Follower {
    tail: LogTail,
    fold: LogFold,
    entry: Arc<SourceEntry>,
    out: Observations,
    meters: Meters,
}

impl Follower {
    fn run(mut self, stopping: &AtomicBool) {
        self.entry.started(clock::now());
        while !stopping.load(Ordering::Relaxed) && self.wake() {
            std::thread::sleep(BEAT);
        }
    }

    /// One look at the log; false when nobody reads any more.
    fn wake(&mut self) -> bool {
        let started = Instant::now();
        let was = self.fold.counts();
        let fold = &mut self.fold;
        let read = self.tail.read(|piece| match piece {
            // What is wrong with a line is counted by the fold.
            Piece::Line(line) => fold.line(line).map_or((), |_| ()),
            Piece::Long => fold.too_long(),
        });
        let observations = self.fold.drain(clock::now());
        self.count(&was);
        self.entry.round(&RoundReport {
            at: clock::now(),
            duration: started.elapsed(),
            gap: BEAT,
            observations: observations.len(),
            streams: streams(&observations),
            failures: read.err().map(|error| ("log", error.to_string())).into_iter().collect(),
        });
        let is_read = hand_on(observations, &self.entry, &self.out);
        self.save();
        is_read
    }

    /// Counts what was left out since `was`.
    fn count(&self, was: &Counts) {
        let (_, _, dirty, fold) = self.fold.counts();
        let (_, _, dirty_was, fold_was) = was;
        for (reason, now, was) in [
            ("log_line_form", dirty.form, dirty_was.form),
            ("log_line_time", dirty.time, dirty_was.time),
            ("log_line_long", dirty.long, dirty_was.long),
            ("log_cmcd_version", dirty.version, dirty_was.version),
            ("log_cmcd_value", dirty.values, dirty_was.values),
            ("log_sessions", fold.refused_sessions, fold_was.refused_sessions),
            ("log_viewers", fold.refused_viewers, fold_was.refused_viewers),
            ("log_session_displaced", fold.displaced_sessions, fold_was.displaced_sessions),
            ("log_viewer_displaced", fold.displaced_viewers, fold_was.displaced_viewers),
            ("log_event_repeated", fold.repeated, fold_was.repeated),
            ("log_event_homeless", fold.homeless, fold_was.homeless),
        ] {
            self.meters.shed(reason, now - was);
        }
    }

    fn save(&mut self) {
        if let Err(error) = self.tail.save() {
            tracing::warn!("writing down how far the access log was read: {error}");
        }
    }
}

type Counts = (u64, u64, liveqos_core::log_fold::DirtyCounts, liveqos_core::viewer_fold::FoldCounts);

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use liveqos_core::observation::Fact;
    use tokio::sync::mpsc;

    use super::*;
    use crate::intake::status::{SourceState, SourceTable};

    #[test]
    fn a_growing_log_becomes_observations_and_a_line_of_the_table() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        std::fs::write(&path, "").expect("written");
        let settings = AccessLogSettings { path: path.clone(), app: "live".to_owned(), ..AccessLogSettings::default() };
        let table = SourceTable::new(&[], None).with_log(settings.shown_name(), &path);
        let entry = table.entry("access-log").expect("listed");
        let (out, mut seen) = mpsc::channel(8);
        let meters = Meters::new(&prometheus::Registry::new()).expect("instruments");
        let stopping = Arc::new(AtomicBool::new(false));
        start(&settings, Some(entry), out, meters.clone(), Arc::clone(&stopping)).expect("started");
        while table.snapshot(clock::now())[0].rounds == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let now = clock::now().seconds();
        let mut log = std::fs::File::options().append(true).open(&path).expect("the log");
        writeln!(log, "dirt\n{{\"t\":{now},\"st\":200,\"b\":9,\"u\":\"/hls/c1/7.ts\",\"q\":\"sid%3D%22a%22\"}}")
            .expect("room");
        let observations = seen.blocking_recv().expect("told");
        assert_eq!(observations[0].stream.as_str(), "live/c1");
        assert!(matches!(&observations[0].fact, Fact::Players(view) if view.bytes == Some(9)), "{observations:?}");
        assert_eq!(table.snapshot(clock::now())[0].state, SourceState::Up);
        assert!((meters.shed.with_label_values(&["log_line_form"]).get() - 1.0).abs() < 1e-9);
        stopping.store(true, Ordering::Relaxed);
    }
}
