//! Follows each access log on a thread of its own: reads new lines, folds them and the event reports of their viewers,
//! delivers at most one observation per class and tick, then saves the position. Never waits for the receiver of the
//! observations.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use liveqos_core::access_log::{ConnectionCounts, LineErrorCounts, LogFold, PostCounts};
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
    /// Receives the observations.
    pub out: Observations,
    /// Receives the connections that lines contain.
    pub edge: HttpEdge,
    /// The key of the hashes of viewers' networks.
    pub group_key: [u64; 2],
    /// The daemon's counters.
    pub meters: SelfMetrics,
    /// Set to stop all followers.
    pub stopping: Arc<AtomicBool>,
}

/// The logs to follow. Without any, but with players that may post, one log without lines.
#[must_use]
pub(crate) fn log_inputs(logs: &[AccessLogSettings], may_post: bool) -> Vec<AccessLogSettings> {
    let posts = (logs.is_empty() && may_post).then(AccessLogSettings::of_posts);
    logs.iter().cloned().chain(posts).collect()
}

/// Starts a follower for each log; event reports go to the log named `named`, otherwise to the first.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_all(
    logs: &[AccessLogSettings],
    (named, receiver): (&str, EventReceiver),
    table: &SourceTable,
    context: &FollowerContext,
) -> Result<()> {
    let with_posts = logs.iter().position(|log| log.shown_name() == named).unwrap_or(0);
    let mut receiver = Some(receiver);
    for (index, log) in logs.iter().enumerate() {
        let posts = if index == with_posts { receiver.take() } else { None };
        start(log, posts, table.entry(log.shown_name()), context.clone())?;
    }
    Ok(())
}

/// Starts to follow one log, with the event reports of its viewers where `posts` is given, until `stopping` is set or
/// the receiver of the observations is gone.
///
/// # Errors
/// When the settings or the position file are invalid, the socket cannot be bound, or the thread cannot be started.
pub(super) fn start(
    settings: &AccessLogSettings,
    posts: Option<EventReceiver>,
    entry: Option<Arc<SourceEntry>>,
    context: FollowerContext,
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
    let mut fold = fold.grouped_by(settings.group_rules(context.group_key)?);
    fold.connections().keep_reports(context.edge.key());
    let Some(entry) = entry else {
        return Ok(());
    };
    let (source, ports) = (SourceName::from(name), settings.ports.clone());
    let follower = Follower { input, posts, fold, entry, source, ports, context, was: ShedTotals::default() };
    std::thread::Builder::new().name("access-log".to_owned()).spawn(move || follower.run())?;
    Ok(())
}

/// The source of a log's lines.
enum Input {
    File(Box<LogTail>),
    Syslog(Box<SyslogSocket>),
    /// No lines: event reports only.
    Posts,
}

struct Follower {
    input: Input,
    posts: Option<EventReceiver>,
    fold: LogFold,
    entry: Arc<SourceEntry>,
    source: SourceName,
    ports: Vec<u16>,
    context: FollowerContext,
    was: ShedTotals,
}

/// All counts so far of what was dropped.
#[derive(Clone, Copy, Default)]
struct ShedTotals {
    dirty: LineErrorCounts,
    fold: FoldCounts,
    posts: PostCounts,
    connections: ConnectionCounts,
    connections_refused: u64,
    syslog: SyslogCounts,
    unmatched: u64,
    positions_lost: u64,
}

impl Follower {
    fn run(mut self) {
        self.entry.started(clock::now());
        while !self.context.stopping.load(Ordering::Relaxed) && self.wake() {
            // Reading from a socket waits for datagrams, so no pause is needed.
            if !matches!(self.input, Input::Syslog(_)) {
                std::thread::sleep(TICK);
            }
        }
    }

    /// Reads and delivers once; false when the receiver of the observations is gone.
    fn wake(&mut self) -> bool {
        let started = Instant::now();
        let read = self.read();
        let now = clock::now();
        if let Some(posts) = &mut self.posts {
            posts.fold_into(&mut self.fold, now);
        }
        let refused = self.context.edge.take(&self.source, now, &self.ports, self.fold.connections());
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
        let is_read = deliver(observations, &self.entry, &self.context.out);
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
                    // The fold counts invalid lines.
                    Piece::Line(line) => fold.line(line).map_or((), |_| ()),
                    Piece::Long => fold.count_too_long(),
                })
                .map(drop),
            Input::Syslog(socket) => socket.read(TICK, |line| fold.line(line).map_or((), |_| ())),
            Input::Posts => Ok(()),
        }
    }

    /// Adds what was dropped since the last call to `liveqos_shed_total`.
    fn count(&mut self, connections_refused: u64) {
        let (_, _, dirty, fold) = self.fold.counts();
        let syslog = match &mut self.input {
            Input::Syslog(socket) => socket.counts(),
            _ => SyslogCounts::default(),
        };
        let positions_lost = match &self.input {
            Input::File(tail) => tail.positions_lost(),
            _ => 0,
        };
        let unmatched = self.posts.as_ref().map_or(0, EventReceiver::unmatched) + fold.unmatched;
        let now = ShedTotals {
            dirty,
            fold,
            posts: self.fold.post_counts(),
            connections: self.fold.connections().counts(),
            connections_refused: self.was.connections_refused + connections_refused,
            syslog,
            unmatched,
            positions_lost,
        };
        let was = std::mem::replace(&mut self.was, now);
        for (reason, of) in SHED {
            self.context.meters.shed(reason, of(&now).saturating_sub(of(&was)));
        }
    }

    fn save(&mut self) {
        if let Input::File(tail) = &mut self.input
            && let Err(error) = tail.save()
        {
            tracing::warn!("cannot save the read position of the access log: {error}");
        }
    }
}

type Reason = (ShedReason, fn(&ShedTotals) -> u64);

/// The `reason` label of each count in `liveqos_shed_total`.
const SHED: [Reason; 22] = [
    (ShedReason::LogLineForm, |totals| totals.dirty.form),
    (ShedReason::LogLineTime, |totals| totals.dirty.time),
    (ShedReason::LogLineLong, |totals| totals.dirty.long + totals.syslog.long),
    (ShedReason::LogCmcdVersion, |totals| totals.dirty.version),
    (ShedReason::LogCmcdValue, |totals| totals.dirty.values),
    (ShedReason::LogSessions, |totals| totals.fold.refused_sessions),
    (ShedReason::LogViewers, |totals| totals.fold.refused_viewers),
    (ShedReason::LogSessionDisplaced, |totals| totals.fold.displaced_sessions),
    (ShedReason::LogViewerDisplaced, |totals| totals.fold.displaced_viewers),
    (ShedReason::LogGroups, |totals| totals.fold.refused_groups),
    (ShedReason::LogEventRepeated, |totals| totals.fold.repeated),
    (ShedReason::LogEventUnmatched, |totals| totals.unmatched),
    (ShedReason::LogPosition, |totals| totals.positions_lost),
    (ShedReason::CmcdWrongSession, |totals| totals.posts.wrong_session),
    (ShedReason::CmcdTooManyViewers, |totals| totals.posts.too_many_viewers),
    (ShedReason::SyslogForm, |totals| totals.syslog.form),
    (ShedReason::SyslogLost, |totals| totals.syslog.lost),
    (ShedReason::SyslogSender, |totals| totals.syslog.untrusted_senders),
    (ShedReason::LogEventLost, |totals| totals.fold.lost),
    (ShedReason::LogConnections, |totals| totals.connections.connections + totals.connections_refused),
    (ShedReason::LogConnectionClasses, |totals| totals.connections.classes),
    (ShedReason::LogPorts, |totals| totals.connections.ports),
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
    fn a_growing_log_becomes_observations_and_an_entry_in_the_table() {
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
        let context =
            FollowerContext { out, edge, group_key: [3, 4], meters: meters.clone(), stopping: Arc::clone(&stopping) };
        start(&settings, None, Some(entry), context).expect("started");
        while table.snapshot(clock::now())[0].rounds == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let now = clock::now().seconds();
        let mut log = std::fs::File::options().append(true).open(&path).expect("the log");
        writeln!(log, "dirt\n{{\"t\":{now},\"st\":200,\"b\":9,\"u\":\"/hls/c1/7.ts\",\"q\":\"sid%3D%22a%22\"}}")
            .expect("room");
        let observations = seen.blocking_recv().expect("observations");
        assert_eq!(observations[0].stream.as_str(), "live/c1");
        assert!(matches!(&observations[0].fact, Fact::Players(view) if view.bytes == Some(9)), "{observations:?}");
        assert_eq!(table.snapshot(clock::now())[0].state, SourceState::Up);
        assert!((meters.shed.with_label_values(&[ShedReason::LogLineForm.as_str()]).get() - 1.0).abs() < 1e-9);
        stopping.store(true, Ordering::Relaxed);
    }
}
