//! An access log through the fold, beside a scan by hand of the same bytes ([`scan`]). Both give for each class and
//! window of 5 s how many requests, bytes, viewers whose buffer ran dry and viewers present there were; the answers are
//! checked equal. Prints CPU time a line, the ratio, and memory. The log is a file of 2,000,000 lines, read by both in
//! the same way; another number may be given: `cargo bench -p liveqos-core --bench access_log -- 200000`. Without
//! optimisation (`cargo test --benches`) a smoke run of 20,000.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads a file; the rules it measures do not")]

#[path = "../support/cpu.rs"]
mod cpu;
mod crowd;
mod lines;
mod scan;
mod usage;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read as _};
use std::path::Path;
use std::time::Duration;

use liveqos_core::access_log::{ClassRule, LogFold, LogFormat};
use liveqos_core::model::{Fact, GRID, Observation, TICK, Timestamp};
use memchr::{memchr, memrchr};

use crate::lines::Form;
use crate::scan::Scan;

/// By class and end of window, Unix milliseconds.
type Answer = BTreeMap<(String, u64), Row>;

/// One class in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    requests: u64,
    bytes: u64,
    starved: u32,
    viewers: u32,
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let lines = asked.unwrap_or(if cfg!(debug_assertions) { 20_000 } else { 2_000_000 });
    let path = std::env::temp_dir().join(format!("liveqos-bench-{}.log", std::process::id()));
    let mut folds = BTreeMap::new();
    for form in [Form::Text, Form::Headers, Form::Query] {
        write(&path, if form == Form::Query { lines } else { lines.min(OTHER_FORMS) }, form);
        let (answer, took, resident) = fold(&path, form);
        folds.insert(format!("{form:?}"), (answer, took, resident));
    }
    compare(&path, lines);
    // The other forms are held against the first one, on as many lines.
    write(&path, lines.min(OTHER_FORMS), Form::Query);
    let first = fold(&path, Form::Query).0;
    let (expected, scan) = scanned(&path);
    assert_same(&first, &expected, "scan");
    let each = |took: Duration| took.as_nanos() as f64 / lines.min(OTHER_FORMS) as f64;
    for (form, (answer, took, resident)) in folds.iter().filter(|(form, _)| form.as_str() != "Query") {
        assert_same(answer, &first, form);
        println!(
            "{form}: fold {:.0} ns a line, {:.2} times the scan of the first form; grown by {resident} kB while folding",
            each(*took),
            took.as_secs_f64() / scan.as_secs_f64(),
        );
    }
    std::fs::remove_file(&path).expect("it was written");
    crowd::print();
}

fn compare(path: &Path, lines: u64) {
    let (mut fold_took, mut scan_took, mut read_took) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (answer, took, resident) = fold(path, Form::Query);
        fold_took.push(took);
        let (expected, took) = scanned(path);
        scan_took.push(took);
        assert_same(&answer, &expected, "scan");
        let begun = cpu::spent();
        let mut count = 0_u64;
        each_line(path, |line| count += u64::from(!line.is_empty()));
        read_took.push(usage::since(begun));
        let each = |took: &[Duration]| took.last().map_or(0.0, |took| took.as_nanos() as f64 / lines as f64);
        println!(
            "fold {:4.0} ns a line, scan {:4.0}, ratio {:.2}; reading alone {:3.0} ns; grown by {} kB while folding",
            each(&fold_took),
            each(&scan_took),
            each(&fold_took) / each(&scan_took),
            each(&read_took),
            resident,
        );
    }
    // The fastest rounds: what else the machine does only adds.
    let least = |took: &[Duration]| took.iter().min().map_or(0.0, |took| took.as_nanos() as f64 / lines as f64);
    let (fold, scan, read) = (least(&fold_took), least(&scan_took), least(&read_took));
    println!(
        "{lines} lines, {} MB, {} classes, {} viewers: fold {fold:.0} ns a line, scan {scan:.0}, ratio {:.2}; without the reading of the \
         file {:.0}, {:.0}, {:.2}; resident {} kB",
        std::fs::metadata(path).expect("it was written").len() / 1_000_000,
        lines::CLASSES,
        lines::VIEWERS,
        fold / scan,
        fold - read,
        scan - read,
        (fold - read) / (scan - read),
        usage::resident_kilobytes(),
    );
}

fn assert_same(answer: &Answer, expected: &Answer, what: &str) {
    assert!(!expected.is_empty());
    for (key, row) in expected {
        assert_eq!(answer.get(key), Some(row), "{what}: {key:?}");
    }
    assert_eq!(answer.len(), expected.len(), "{what}");
}

fn write(path: &Path, lines: u64, form: Form) {
    let file = File::create(path).expect("a temporary file");
    lines::write(&mut BufWriter::with_capacity(BUFFER, file), lines, form).expect("room on the disk");
}

/// Through the fold with the daemon's tick, by the log's time: answer, CPU time, growth of memory in kB.
fn fold(path: &Path, form: Form) -> (Answer, Duration, u64) {
    let before = usage::resident_kilobytes();
    let begun = cpu::spent();
    let format = if form == Form::Text { LogFormat::text(Form::TEXT) } else { LogFormat::json([]) };
    let mut fold = LogFold::new(format.expect("good"), ClassRule::Path(None), "bench".into(), [1, 2]);
    let mut answer = Answer::new();
    let mut next = None;
    each_line(path, |line| {
        if let Ok(Some(opened)) = fold.parse(line) {
            let next = next.get_or_insert(opened.logged.floor(TICK) + TICK);
            while *next <= opened.logged {
                count(&mut answer, fold.drain(*next), *next);
                *next = *next + TICK;
            }
            fold.fold(&opened).unwrap_or_default();
        }
    });
    let end = next.unwrap_or_default().floor(GRID) + GRID;
    count(&mut answer, fold.drain(end), end);
    answer.retain(|_, row| row.requests > 0);
    (answer, usage::since(begun), usage::resident_kilobytes().saturating_sub(before))
}

/// Adds the observations of `now` to its window.
fn count(answer: &mut Answer, observations: Vec<Observation>, now: Timestamp) {
    let end = Timestamp::from_nanos(now.nanos() - 1).floor(GRID) + GRID;
    for observation in observations {
        let Fact::Players(view) = observation.fact else { continue };
        let row = answer.entry((observation.stream.as_str().to_owned(), end.millis())).or_default();
        row.requests += view.requests.unwrap_or(0);
        row.bytes += view.bytes.unwrap_or(0);
        row.starved += view.starved_viewers.unwrap_or(0);
        row.viewers = view.viewers;
    }
}

fn scanned(path: &Path) -> (Answer, Duration) {
    let begun = cpu::spent();
    let mut scan = Scan::new();
    each_line(path, |line| scan.line(line).unwrap_or_default());
    let answer = scan.end();
    (answer, usage::since(begun))
}

/// Reads a file in pieces of one size, line by line without their ends.
fn each_line(path: &Path, mut take: impl FnMut(&[u8])) {
    let mut file = File::open(path).expect("it was written");
    let mut buffer = vec![0; BUFFER];
    let mut kept = 0;
    loop {
        let count = file.read(&mut buffer[kept..]).expect("a file can be read");
        if count == 0 {
            return;
        }
        let filled = kept + count;
        let whole = memrchr(b'\n', &buffer[..filled]).map_or(0, |at| at + 1);
        let mut rest = &buffer[..whole];
        while let Some(end) = memchr(b'\n', rest) {
            take(&rest[..end]);
            rest = &rest[end + 1..];
        }
        buffer.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
}

const ROUNDS: usize = if cfg!(debug_assertions) { 1 } else { 5 };
/// Lines of the other forms.
const OTHER_FORMS: u64 = 200_000;
const BUFFER: usize = 1 << 18;
