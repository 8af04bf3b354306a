//! Records the input of the rules to a file, for `liveqos replay`. Decides when the file is full. It never makes the
//! engine wait: events that the disk does not take in time are left out and counted, here and in the recording.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Environment, Timestamp};
use liveqos_core::recording::{self, Event, Head, MARK};

use crate::platform::SelfMetrics;

/// Whether a recording is made, and where.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RecordTo {
    /// Record the input of the rules to this file (compressed where it ends in .gz), for `liveqos replay`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Largest size of the recording in bytes; it ends there, and further events are counted as shed
    #[arg(long, value_name = "BYTES", default_value_t = MAX_BYTES, requires = "record", value_parser = clap::value_parser!(u64).range(1..))]
    record_bytes: u64,
}

/// Where the engine sends its events.
pub struct Recorder {
    /// `None` once the file is closed.
    out: Option<Sender<Vec<Event>>>,
    events: Vec<Event>,
    environment: Option<Environment>,
    /// Events left out since the last one that was not.
    lost: u64,
    /// Events on their way to the disk.
    waiting: Arc<AtomicUsize>,
    closed: Receiver<()>,
    meters: SelfMetrics,
}

impl RecordTo {
    /// Starts the recording, where one is wanted. An existing recording of this name is renamed with `.before` at its
    /// end.
    ///
    /// # Errors
    /// When the file cannot be created, or exists and is not a recording.
    pub fn begin(&self, head: &Head, meters: &SelfMetrics) -> Result<Option<Recorder>> {
        let Some(path) = &self.record else {
            return Ok(None);
        };
        let begin = || {
            let file = create(path)?;
            let mut output = Output::new(file, is_compressed(path));
            output.write(&recording::line(head)?)?;
            output.flush()?;
            Recorder::start(output, self.record_bytes, meters.clone()).context("starting its thread")
        };
        begin().map(Some).with_context(|| format!("recording to {}", path.display()))
    }
}

impl Recorder {
    fn start(output: Output<File>, max_bytes: u64, meters: SelfMetrics) -> io::Result<Self> {
        let ((out, events), (done, closed)) = (channel::<Vec<Event>>(), channel());
        let waiting: Arc<AtomicUsize> = Arc::default();
        let (left, shed) = (Arc::clone(&waiting), meters.clone());
        std::thread::Builder::new().name("recording".to_owned()).spawn(move || {
            if let Err(error) = write_events(output, max_bytes, &events, (&left, &shed)) {
                tracing::error!("recording stopped: {error}");
            }
            // The receiver is read only when the recorder is dropped.
            done.send(()).unwrap_or_default();
        })?;
        Ok(Self { out: Some(out), events: Vec::new(), environment: None, lost: 0, waiting, closed, meters })
    }

    /// Records an event; returns whether there was room.
    pub fn record(&mut self, event: impl FnOnce() -> Event) -> bool {
        let full = self.out.is_none() || self.events.len() + self.waiting.load(Ordering::Relaxed) >= MAX_WAITING;
        if full {
            self.lost += 1;
            self.meters.shed(ShedReason::Recording, 1);
        } else {
            self.events.push(event());
        }
        !full
    }

    /// Records a tick and, where it changed, its environment, and passes all events on.
    pub fn tick(&mut self, now: Timestamp, environment: &Environment) {
        if self.environment.as_ref() != Some(environment)
            && self.record(|| Event::Environment(Box::new(environment.clone())))
        {
            self.environment = Some(environment.clone());
        }
        self.record(|| Event::Tick(now));
        self.send();
    }

    /// Sends the recorded events to the writer; never waits.
    fn send(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            events.insert(0, Event::Lost(lost));
        }
        let count = events.len();
        self.waiting.fetch_add(count, Ordering::Relaxed);
        if self.out.as_ref().is_some_and(|out| out.send(events).is_err()) {
            self.out = None;
            self.meters.shed(ShedReason::Recording, count as u64);
        }
    }
}

impl Drop for Recorder {
    /// Sends the last events and waits for the end of the file, at most [`CLOSE_TIMEOUT`].
    fn drop(&mut self) {
        self.send();
        self.out = None;
        self.closed.recv_timeout(CLOSE_TIMEOUT).unwrap_or_default();
    }
}

/// Writes events until there are no more or the file is full. An event whose line is too long is left out and counted.
fn write_events(
    mut output: Output<File>,
    max_bytes: u64,
    events: &Receiver<Vec<Event>>,
    (waiting, meters): (&AtomicUsize, &SelfMetrics),
) -> Result<()> {
    let (mut full, mut batches) = (false, 0_u64);
    while let Ok(batch) = events.recv() {
        let count = batch.len();
        for event in batch {
            if let Ok(line) = recording::line(&event) {
                output.write(&line)?;
            } else {
                meters.shed(ShedReason::Recording, 1);
                output.write(&recording::line(&Event::Lost(1))?)?;
            }
        }
        waiting.fetch_sub(count, Ordering::Relaxed);
        batches += 1;
        if batches.is_multiple_of(FLUSH_EVERY) {
            output.flush()?;
        }
        full = output.bytes() >= max_bytes;
        if full {
            tracing::warn!(bytes = output.bytes(), "the recording is full and ends");
            break;
        }
    }
    output.write(&recording::line(&Event::End { full })?)?;
    Ok(output.end()?)
}

/// A file being written, plain or compressed.
enum Output<W: Write> {
    Plain(BufWriter<Counted<W>>),
    Compressed(GzEncoder<BufWriter<Counted<W>>>),
}

impl<W: Write> Output<W> {
    fn new(file: W, compressed: bool) -> Self {
        let out = BufWriter::with_capacity(BUFFER, Counted { file, bytes: 0 });
        if compressed { Self::Compressed(GzEncoder::new(out, Compression::fast())) } else { Self::Plain(out) }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(line),
            Self::Compressed(out) => out.write_all(line),
        }
    }

    /// Passes everything written so far to the operating system, where it survives the end of the daemon.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Compressed(out) => out.flush(),
        }
    }

    /// Bytes in the file and its buffer.
    fn bytes(&self) -> u64 {
        let out = match self {
            Self::Plain(out) => out,
            Self::Compressed(out) => out.get_ref(),
        };
        out.get_ref().bytes + out.buffer().len() as u64
    }

    fn end(self) -> io::Result<()> {
        match self {
            Self::Plain(mut out) => out.flush(),
            Self::Compressed(out) => out.finish()?.flush(),
        }
    }
}

/// Counts the bytes written.
struct Counted<W> {
    file: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Creates the file, readable only by its owner, because it contains names of classes. An existing recording is
/// renamed.
fn create(path: &Path) -> Result<File> {
    if path.try_exists()? {
        ensure!(is_recording(path)?, "it exists and is not a recording; name another file");
        let mut aside = path.as_os_str().to_owned();
        aside.push(".before");
        fs::rename(path, aside)?;
    }
    Ok(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?)
}

/// Whether a file begins like a recording.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn is_recording(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    let take = |reader: &mut dyn io::Read, begin: &mut Vec<u8>| reader.take(MARK.len() as u64).read_to_end(begin);
    let mut file = File::open(path)?;
    if is_compressed(path) {
        // A file that cannot be decompressed is no recording.
        take(&mut flate2::read::MultiGzDecoder::new(file), &mut begin).unwrap_or_default();
    } else {
        take(&mut file, &mut begin)?;
    }
    Ok(begin == MARK)
}

/// Whether a file of this name is compressed.
#[must_use]
pub(crate) fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "gz")
}

/// Default of `--record-bytes`.
const MAX_BYTES: u64 = 1_000_000_000;
/// Most events between engine and disk: some seconds of a large node, tens of megabytes when the disk hangs.
const MAX_WAITING: usize = 16_384;
/// Ticks between two flushes; a daemon that is killed loses two seconds of its recording.
const FLUSH_EVERY: u64 = 8;
/// How long the end of the daemon waits for the last events to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
const BUFFER: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use liveqos_core::model::Objectives;
    use liveqos_core::recording::Settings;
    use liveqos_core::session::SessionTimeouts;

    use super::*;

    fn head() -> Head {
        let settings =
            Settings { objectives: Objectives::default(), timeouts: SessionTimeouts::default(), max_sessions: 4 };
        Head::new("n".to_owned(), Timestamp::from_secs(1_000), settings)
    }

    fn meters() -> SelfMetrics {
        SelfMetrics::new(&prometheus::Registry::new()).unwrap()
    }

    fn options(path: &Path, record_bytes: u64) -> RecordTo {
        RecordTo { record: Some(path.to_owned()), record_bytes }
    }

    fn lines(path: &Path) -> Vec<String> {
        let mut text = String::new();
        let mut file = File::open(path).unwrap();
        if is_compressed(path) {
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else {
            file.read_to_string(&mut text).unwrap();
        }
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn recorded_events_are_in_the_file_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.jsonl.gz"] {
            let path = folder.path().join(name);
            let mut recorder = options(&path, MAX_BYTES).begin(&head(), &meters()).unwrap().unwrap();
            for tick in 0..40 {
                recorder.tick(Timestamp::from_secs(tick), &Environment::default());
            }
            drop(recorder);
            let lines = lines(&path);
            assert_eq!(lines.len(), 43, "head, environment once, forty ticks, end");
            assert_eq!(lines[42], "{\"end\":{\"full\":false}}");
            assert!(is_recording(&path).unwrap());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_full_recording_ends_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, meters) = (folder.path().join("a"), meters());
        let mut recorder = options(&path, 2_000).begin(&head(), &meters).unwrap().unwrap();
        let mut ticks = 0;
        let shed = || meters.shed.with_label_values(&[ShedReason::Recording.as_str()]).get();
        while shed() < 3.0 {
            recorder.tick(Timestamp::from_secs(ticks), &Environment::default());
            ticks += 1;
        }
        drop(recorder);
        let lines = lines(&path);
        assert!(fs::metadata(&path).unwrap().len() < 2_200);
        assert_eq!(lines.last().unwrap(), "{\"end\":{\"full\":true}}");
    }

    #[test]
    fn an_event_with_too_long_a_line_is_left_out_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, meters) = (folder.path().join("a"), meters());
        let mut recorder = options(&path, MAX_BYTES).begin(&head(), &meters).unwrap().unwrap();
        let mut environment = Environment::default();
        environment.sources.push(("x".repeat(recording::MAX_LINE).as_str().into(), None));
        recorder.tick(Timestamp::from_secs(1), &environment);
        drop(recorder);
        let lines = lines(&path);
        assert_eq!(lines[1..], ["{\"lost\":1}", "{\"beat\":1000000000}", "{\"end\":{\"full\":false}}"]);
        assert_eq!(meters.shed.with_label_values(&[ShedReason::Recording.as_str()]).get() as u64, 1);
    }

    #[test]
    fn a_slow_writer_loses_events_and_never_blocks() {
        let (out, events) = channel();
        let (_done, closed) = channel();
        let meters = meters();
        let (waiting, environment) = (Arc::default(), None);
        let mut recorder = Recorder {
            out: Some(out),
            events: Vec::new(),
            environment,
            lost: 0,
            waiting,
            closed,
            meters: meters.clone(),
        };
        for _ in 0..MAX_WAITING + 10 {
            recorder.record(|| Event::Forgotten);
        }
        recorder.send();
        assert_eq!(meters.shed.with_label_values(&[ShedReason::Recording.as_str()]).get() as u64, 10);
        assert_eq!(events.recv().unwrap().len(), MAX_WAITING + 1, "the lost events are counted");
        assert!(!recorder.record(|| Event::Forgotten), "nothing is written yet");
    }

    #[test]
    fn another_file_is_not_touched_and_a_recording_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "root:x:0:0").unwrap();
        let refused = options(&path, 9).begin(&head(), &meters()).err().unwrap();
        assert!(format!("{refused:#}").contains("not a recording; name another file"), "{refused:#}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "root:x:0:0");
        let path = folder.path().join("b");
        for _ in 0..2 {
            drop(options(&path, 9_999).begin(&head(), &meters()).unwrap());
        }
        assert!(lines(&folder.path().join("b.before")).len() == 2 && lines(&path).len() == 2);
    }
}
