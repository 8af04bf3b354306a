//! Follows access logs and takes in players' posts, each fold of viewers on a thread of its own, and hands on what they
//! told: at most one observation a class and tick. Decides only the order: read, fold, drain, hand on, write down how
//! far; refuses to wait for a reader that is behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use liveqos_core::access_log::{ConnectionCounts, DirtyCounts, LogFold, PostCounts};
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{SourceName, TICK};
use liveqos_core::viewer::FoldCounts;
use tokio::time::Instant;

use super::event_queue::EventReceiver;
use super::settings::{AccessLogSettings, LogSource};
use super::syslog_socket::{SyslogCounts, SyslogSocket};
use super::tail::{LogTail, Piece};
use crate::intake::kernel::HttpEdge;
use crate::intake::observations::{Observations, deliver, stream_count};
use crate::intake::source::{RoundReport, SourceEntry, SourceTable};
use crate::platform::{SelfMetrics, clock};

/// What all followers share.
#[derive(Clone)]
pub(crate) struct FollowerContext {
    /// Where observations go.
    pub out: Observations,
    /// Where the words on connections go.
    pub edge: HttpEdge,
    /// Under which viewers' networks are hashed.
    pub group_key: [u64; 2],
    /// The daemon's counters.
    pub meters: SelfMetrics,
    /// Set when they are to stop.
    pub stopping: Arc<AtomicBool>,
}

/// The logs to follow; where there is none but players may post, one without lines.
#[must_use]
pub(crate) fn log_inputs(logs: &[AccessLogSettings], may_post: bool) -> Vec<AccessLogSettings> {
    let posts = (logs.is_empty() && may_post).then(AccessLogSettings::of_posts);
    logs.iter().cloned().chain(posts).collect()
}

/// Starts all followers; the posts go to the one of this name, else to the first.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_all(
    logs: &[AccessLogSettings],
    (named, tray): (&str, EventReceiver),
    table: &SourceTable,
    around: &FollowerContext,
) -> Result<()> {
    let with_posts = logs.iter().position(|log| log.shown_name() == named).unwrap_or(0);
    let mut tray = Some(tray);
    for (index, log) in logs.iter().enumerate() {
        let posts = if index == with_posts { tray.take() } else { None };
        start(log, posts, table.entry(log.shown_name()), around.clone())?;
    }
    Ok(())
}

/// Begins to follow one log, with the posts of its viewers where they come here, until told to stop or nobody reads any
/// more.
///
/// # Errors
/// When its settings or its position file are bad, its socket cannot be bound, or the thread cannot be started.
pub(super) fn start(
    settings: &AccessLogSettings,
    posts: Option<EventReceiver>,
    entry: Option<Arc<SourceEntry>>,
    around: FollowerContext,
) -> Result<()> {
    let name = settings.shown_name();
    let input = match settings.source()? {
        LogSource::File(path) => {
            let tail = LogTail::new(&path, settings.position_file.as_deref());
            Input::File(Box::new(tail.with_context(|| format!("reading the position of log \"{name}\""))?))
        }
        LogSource::Syslog(address) => {
            let socket = SyslogSocket::bind(&address, settings.senders()?, settings.buffer_bytes());
            Input::Syslog(Box::new(socket.with_context(|| format!("log \"{name}\": binding {address}"))?))
        }
        LogSource::Posts => Input::Posts,
    };
    let fold = settings.fold(settings.viewer_key()?)?;
    let mut fold = fold.grouped_by(settings.group_rules(around.group_key)?);
    fold.claims().keep_words(around.edge.key());
    let Some(entry) = entry else {
        return Ok(());
    };
    let (source, ports) = (SourceName::from(name), settings.ports.clone());
    let follower = Follower { input, posts, fold, entry, source, ports, around, was: ShedTotals::default() };
    std::thread::Builder::new().name("access-log".to_owned()).spawn(move || follower.run())?;
    Ok(())
}

/// Where lines come from.
enum Input {
    File(Box<LogTail>),
    Syslog(Box<SyslogSocket>),
    /// From nowhere: posts alone.
    Posts,
}

struct Follower {
    input: Input,
    posts: Option<EventReceiver>,
    fold: LogFold,
    entry: Arc<SourceEntry>,
    source: SourceName,
    ports: Vec<u16>,
    around: FollowerContext,
    was: ShedTotals,
}

/// All counts so far.
#[derive(Clone, Copy, Default)]
struct ShedTotals {
    dirty: DirtyCounts,
    fold: FoldCounts,
    posts: PostCounts,
    claims: ConnectionCounts,
    claims_refused: u64,
    syslog: SyslogCounts,
    homeless: u64,
    positions_lost: u64,
}

impl Follower {
    fn run(mut self) {
        self.entry.started(clock::now());
        while !self.around.stopping.load(Ordering::Relaxed) && self.wake() {
            // A socket is read all the time; its reading is the pause.
            if !matches!(self.input, Input::Syslog(_)) {
                std::thread::sleep(TICK);
            }
        }
    }

    /// One look at the log; false when nobody reads any more.
    fn wake(&mut self) -> bool {
        let started = Instant::now();
        let read = self.read();
        let now = clock::now();
        if let Some(posts) = &mut self.posts {
            posts.empty_into(&mut self.fold, now);
        }
        let refused = self.around.edge.take(&self.source, now, &self.ports, self.fold.claims());
        let observations = self.fold.drain(now);
        self.count(refused);
        let waited = if matches!(self.input, Input::Syslog(_)) { TICK } else { std::time::Duration::ZERO };
        self.entry.round(&RoundReport {
            at: now,
            duration: started.elapsed().saturating_sub(waited),
            gap: TICK,
            observations: observations.len(),
            streams: stream_count(&observations),
            failures: read.err().map(|error| ("log", error.to_string())).into_iter().collect(),
        });
        let is_read = deliver(observations, &self.entry, &self.around.out);
        if is_read {
            self.save();
        }
        is_read
    }

    fn read(&mut self) -> io::Result<()> {
        let fold = &mut self.fold;
        match &mut self.input {
            Input::File(tail) => tail
                .read(|piece| match piece {
                    // What is wrong with a line is counted by the fold.
                    Piece::Line(line) => fold.line(line).map_or((), |_| ()),
                    Piece::Long => fold.too_long(),
                })
                .map(drop),
            Input::Syslog(socket) => socket.read(TICK, |line| fold.line(line).map_or((), |_| ())),
            Input::Posts => Ok(()),
        }
    }

    /// Counts what was left out since the last time.
    fn count(&mut self, claims_refused: u64) {
        let (_, _, dirty, fold) = self.fold.counts();
        let syslog = match &mut self.input {
            Input::Syslog(socket) => socket.counts(),
            _ => SyslogCounts::default(),
        };
        let positions_lost = match &self.input {
            Input::File(tail) => tail.positions_lost(),
            _ => 0,
        };
        let homeless = self.posts.as_ref().map_or(0, EventReceiver::homeless) + fold.homeless;
        let now = ShedTotals {
            dirty,
            fold,
            posts: self.fold.post_counts(),
            claims: self.fold.claims().counts(),
            claims_refused: self.was.claims_refused + claims_refused,
            syslog,
            homeless,
            positions_lost,
        };
        let was = std::mem::replace(&mut self.was, now);
        for (reason, of) in SHED {
            self.around.meters.shed(reason, of(&now).saturating_sub(of(&was)));
        }
    }

    fn save(&mut self) {
        if let Input::File(tail) = &mut self.input
            && let Err(error) = tail.save()
        {
            tracing::warn!("writing down how far the access log was read: {error}");
        }
    }
}

type Reason = (ShedReason, fn(&ShedTotals) -> u64);

/// Why something was left out, as `liveqos_shed_total` says it.
const SHED: [Reason; 22] = [
    (ShedReason::LogLineForm, |told| told.dirty.form),
    (ShedReason::LogLineTime, |told| told.dirty.time),
    (ShedReason::LogLineLong, |told| told.dirty.long + told.syslog.long),
    (ShedReason::LogCmcdVersion, |told| told.dirty.version),
    (ShedReason::LogCmcdValue, |told| told.dirty.values),
    (ShedReason::LogSessions, |told| told.fold.refused_sessions),
    (ShedReason::LogViewers, |told| told.fold.refused_viewers),
    (ShedReason::LogSessionDisplaced, |told| told.fold.displaced_sessions),
    (ShedReason::LogViewerDisplaced, |told| told.fold.displaced_viewers),
    (ShedReason::LogGroups, |told| told.fold.refused_groups),
    (ShedReason::LogEventRepeated, |told| told.fold.repeated),
    (ShedReason::LogEventUnmatched, |told| told.homeless),
    (ShedReason::LogPosition, |told| told.positions_lost),
    (ShedReason::CmcdWrongSession, |told| told.posts.foreign),
    (ShedReason::CmcdTooManyViewers, |told| told.posts.crowded),
    (ShedReason::SyslogForm, |told| told.syslog.form),
    (ShedReason::SyslogLost, |told| told.syslog.lost),
    (ShedReason::SyslogSender, |told| told.syslog.strangers),
    (ShedReason::LogEventLost, |told| told.fold.lost),
    (ShedReason::LogConnections, |told| told.claims.connections + told.claims_refused),
    (ShedReason::LogConnectionClasses, |told| told.claims.classes),
    (ShedReason::LogPorts, |told| told.claims.ports),
];

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use liveqos_core::model::Fact;
    use tokio::sync::mpsc;

    use super::*;
    use crate::intake::source::{SourceState, SourceTable};

    #[test]
    fn a_growing_log_becomes_observations_and_a_line_of_the_table() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        std::fs::write(&path, "").expect("written");
        let settings = AccessLogSettings { path: path.clone(), app: "live".to_owned(), ..AccessLogSettings::default() };
        let table = SourceTable::new(&[], None).with_log(settings.shown_name(), settings.status_kind_and_url());
        let entry = table.entry("access-log").expect("listed");
        let (out, mut seen) = mpsc::channel(8);
        let meters = SelfMetrics::new(&prometheus::Registry::new()).expect("instruments");
        let stopping = Arc::new(AtomicBool::new(false));
        let edge = HttpEdge::new([1, 2]);
        let around =
            FollowerContext { out, edge, group_key: [3, 4], meters: meters.clone(), stopping: Arc::clone(&stopping) };
        start(&settings, None, Some(entry), around).expect("started");
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
        assert!((meters.shed.with_label_values(&[ShedReason::LogLineForm.as_str()]).get() - 1.0).abs() < 1e-9);
        stopping.store(true, Ordering::Relaxed);
    }
}
