//! Keeps what the rules hear in a file, for `liveqos replay`. Decides when the file is full; refuses to make the engine
//! wait: what the disk does not take in time is left out, counted, and said in the recording.

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

/// Whether and where a recording is kept.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RecordTo {
    /// Keep all that the rules hear in this file (packed where it ends in .gz), for `liveqos replay`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Most bytes of the recording; then it ends, and the rest is counted as shed
    #[arg(long, value_name = "BYTES", default_value_t = MAX_BYTES, requires = "record", value_parser = clap::value_parser!(u64).range(1..))]
    record_bytes: u64,
}

/// What the engine hands its words to.
pub struct Recorder {
    /// `None` once the file is closed.
    out: Option<Sender<Vec<Event>>>,
    words: Vec<Event>,
    around: Option<Environment>,
    /// Words that were not written since the last that was.
    lost: u64,
    /// Words on their way to the disk.
    waiting: Arc<AtomicUsize>,
    closed: Receiver<()>,
    meters: SelfMetrics,
}

impl RecordTo {
    /// Begins the recording, where one is asked for. A recording of this name is kept beside it with `.before` at its
    /// end.
    ///
    /// # Errors
    /// When the file cannot be made, or holds something else.
    pub fn begin(&self, head: &Head, meters: &SelfMetrics) -> Result<Option<Recorder>> {
        let Some(path) = &self.record else {
            return Ok(None);
        };
        let begin = || {
            let file = make(path)?;
            let mut tape = Tape::new(file, is_packed(path));
            tape.write(&recording::line(head)?)?;
            tape.flush()?;
            Recorder::start(tape, self.record_bytes, meters.clone()).context("starting its thread")
        };
        begin().map(Some).with_context(|| format!("recording to {}", path.display()))
    }
}

impl Recorder {
    fn start(tape: Tape<File>, most: u64, meters: SelfMetrics) -> io::Result<Self> {
        let ((out, words), (done, closed)) = (channel::<Vec<Event>>(), channel());
        let waiting: Arc<AtomicUsize> = Arc::default();
        let (left, shed) = (Arc::clone(&waiting), meters.clone());
        std::thread::Builder::new().name("recording".to_owned()).spawn(move || {
            if let Err(error) = keep(tape, most, &words, (&left, &shed)) {
                tracing::error!("the recording ends: {error}");
            }
            // Nobody waits for it while the daemon runs.
            done.send(()).unwrap_or_default();
        })?;
        Ok(Self { out: Some(out), words: Vec::new(), around: None, lost: 0, waiting, closed, meters })
    }

    /// Notes a word; gives whether there was room.
    pub fn note(&mut self, word: impl FnOnce() -> Event) -> bool {
        let full = self.out.is_none() || self.words.len() + self.waiting.load(Ordering::Relaxed) >= MAX_WAITING;
        if full {
            self.lost += 1;
            self.meters.shed(ShedReason::Recording, 1);
        } else {
            self.words.push(word());
        }
        !full
    }

    /// Notes a tick and what surrounded it, and hands over what was noted.
    pub fn tick(&mut self, now: Timestamp, around: &Environment) {
        if self.around.as_ref() != Some(around) && self.note(|| Event::Environment(Box::new(around.clone()))) {
            self.around = Some(around.clone());
        }
        self.note(|| Event::Tick(now));
        self.hand_over();
    }

    /// Gives the noted words to the writer; never waits.
    fn hand_over(&mut self) {
        if self.words.is_empty() {
            return;
        }
        let mut words = std::mem::take(&mut self.words);
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            words.insert(0, Event::Lost(lost));
        }
        let count = words.len();
        self.waiting.fetch_add(count, Ordering::Relaxed);
        if self.out.as_ref().is_some_and(|out| out.send(words).is_err()) {
            self.out = None;
            self.meters.shed(ShedReason::Recording, count as u64);
        }
    }
}

impl Drop for Recorder {
    /// The last words, and the end; a disk that hangs is waited for no longer than `LAST_WORDS`.
    fn drop(&mut self) {
        self.hand_over();
        self.out = None;
        self.closed.recv_timeout(LAST_WORDS).unwrap_or_default();
    }
}

/// Writes what comes until it ends or the file is full; a word that makes too long a line is left out, counted and
/// said.
fn keep(
    mut tape: Tape<File>,
    most: u64,
    words: &Receiver<Vec<Event>>,
    (waiting, meters): (&AtomicUsize, &SelfMetrics),
) -> Result<()> {
    let (mut full, mut handed) = (false, 0_u64);
    while let Ok(batch) = words.recv() {
        let count = batch.len();
        for word in batch {
            if let Ok(line) = recording::line(&word) {
                tape.write(&line)?;
            } else {
                meters.shed(ShedReason::Recording, 1);
                tape.write(&recording::line(&Event::Lost(1))?)?;
            }
        }
        waiting.fetch_sub(count, Ordering::Relaxed);
        handed += 1;
        if handed.is_multiple_of(FLUSH_EVERY) {
            tape.flush()?;
        }
        full = tape.bytes() >= most;
        if full {
            tracing::warn!(bytes = tape.bytes(), "the recording is full and ends");
            break;
        }
    }
    tape.write(&recording::line(&Event::End { full })?)?;
    Ok(tape.end()?)
}

/// A file being written, plain or packed.
enum Tape<W: Write> {
    Plain(BufWriter<Counted<W>>),
    Packed(GzEncoder<BufWriter<Counted<W>>>),
}

impl<W: Write> Tape<W> {
    fn new(file: W, packed: bool) -> Self {
        let out = BufWriter::with_capacity(BUFFER, Counted { file, bytes: 0 });
        if packed { Self::Packed(GzEncoder::new(out, Compression::fast())) } else { Self::Plain(out) }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(line),
            Self::Packed(out) => out.write_all(line),
        }
    }

    /// Everything so far can be read after this, whatever happens to the daemon.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Packed(out) => out.flush(),
        }
    }

    /// Bytes that the file and its buffer hold.
    fn bytes(&self) -> u64 {
        let out = match self {
            Self::Plain(out) => out,
            Self::Packed(out) => out.get_ref(),
        };
        out.get_ref().bytes + out.buffer().len() as u64
    }

    fn end(self) -> io::Result<()> {
        match self {
            Self::Plain(mut out) => out.flush(),
            Self::Packed(out) => out.finish()?.flush(),
        }
    }
}

/// Counts what goes through.
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

/// Makes the file for nobody else to read: class names are in it. What it holds already is moved aside where it is a
/// recording.
fn make(path: &Path) -> Result<File> {
    if path.try_exists()? {
        ensure!(is_recording(path)?, "it holds something that is no recording; name another file");
        let mut aside = path.as_os_str().to_owned();
        aside.push(".before");
        fs::rename(path, aside)?;
    }
    Ok(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?)
}

/// Whether a file begins as recordings do.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn is_recording(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    let take = |reader: &mut dyn io::Read, begin: &mut Vec<u8>| reader.take(MARK.len() as u64).read_to_end(begin);
    let mut file = File::open(path)?;
    if is_packed(path) {
        // What cannot be unpacked is no recording.
        take(&mut flate2::read::MultiGzDecoder::new(file), &mut begin).unwrap_or_default();
    } else {
        take(&mut file, &mut begin)?;
    }
    Ok(begin == MARK)
}

/// Whether a file of this name is packed.
#[must_use]
pub(crate) fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "gz")
}

/// A recording ends at so many bytes where nothing else is said.
const MAX_BYTES: u64 = 1_000_000_000;
/// Most words between engine and disk: seconds of a large node, and some tens of megabytes where the disk hangs.
const MAX_WAITING: usize = 16_384;
/// Ticks between two times that all is given to the system: a daemon that is killed loses two seconds of its recording.
const FLUSH_EVERY: u64 = 8;
/// How long the end of the daemon waits for the last words.
const LAST_WORDS: Duration = Duration::from_millis(500);
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
        if is_packed(path) {
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else {
            file.read_to_string(&mut text).unwrap();
        }
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_noted_is_in_the_file_plain_and_packed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.jsonl.gz"] {
            let path = folder.path().join(name);
            let mut recorder = options(&path, MAX_BYTES).begin(&head(), &meters()).unwrap().unwrap();
            for tick in 0..40 {
                recorder.tick(Timestamp::from_secs(tick), &Environment::default());
            }
            drop(recorder);
            let lines = lines(&path);
            assert_eq!(lines.len(), 43, "head, surroundings once, forty ticks, end");
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
    fn a_word_that_makes_too_long_a_line_is_left_out_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let (path, meters) = (folder.path().join("a"), meters());
        let mut recorder = options(&path, MAX_BYTES).begin(&head(), &meters).unwrap().unwrap();
        let mut around = Environment::default();
        around.sources.push(("x".repeat(recording::MAX_LINE).as_str().into(), None));
        recorder.tick(Timestamp::from_secs(1), &around);
        drop(recorder);
        let lines = lines(&path);
        assert_eq!(lines[1..], ["{\"lost\":1}", "{\"beat\":1000000000}", "{\"end\":{\"full\":false}}"]);
        assert_eq!(meters.shed.with_label_values(&[ShedReason::Recording.as_str()]).get() as u64, 1);
    }

    #[test]
    fn a_writer_that_does_not_keep_up_costs_words_and_never_waits() {
        let (out, words) = channel();
        let (_done, closed) = channel();
        let meters = meters();
        let (waiting, around) = (Arc::default(), None);
        let mut recorder =
            Recorder { out: Some(out), words: Vec::new(), around, lost: 0, waiting, closed, meters: meters.clone() };
        for _ in 0..MAX_WAITING + 10 {
            recorder.note(|| Event::Forgotten);
        }
        recorder.hand_over();
        assert_eq!(meters.shed.with_label_values(&[ShedReason::Recording.as_str()]).get() as u64, 10);
        assert_eq!(words.recv().unwrap().len(), MAX_WAITING + 1, "what is missing is said");
        assert!(!recorder.note(|| Event::Forgotten), "nothing was written yet");
    }

    #[test]
    fn what_is_no_recording_is_not_touched_and_a_recording_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "root:x:0:0").unwrap();
        let refused = options(&path, 9).begin(&head(), &meters()).err().unwrap();
        assert!(format!("{refused:#}").contains("no recording; name another file"), "{refused:#}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "root:x:0:0");
        let path = folder.path().join("b");
        for _ in 0..2 {
            drop(options(&path, 9_999).begin(&head(), &meters()).unwrap());
        }
        assert!(lines(&folder.path().join("b.before")).len() == 2 && lines(&path).len() == 2);
    }
}
