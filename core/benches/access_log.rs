//! An access log through the fold, beside a scan written for this one log and question. Prints what a line costs and the ratio; the
//! answers to what both can tell are checked equal. `cargo bench -p liveqos-core --bench access_log -- 2000000` for more lines; without
//! optimisation (`cargo test --benches`) a smoke run of 20,000.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use liveqos_core::log_fold::{ClassRule, LogFold};
use liveqos_core::log_format::LogFormat;
use liveqos_core::observation::Fact;
use liveqos_core::time::{GRID, Timestamp};

/// By class and window: bytes. Then all requests and all viewers.
type Answer = (BTreeMap<(String, u64), u64>, u64, usize);

#[expect(clippy::print_stdout, reason = "a benchmark prints")]
fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let lines = asked.unwrap_or(if cfg!(debug_assertions) { 20_000 } else { 200_000 });
    let log = generate(lines);
    let (mut fold, mut scan) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (answer, took) = timed(|| through_fold(&log));
        let (expected, scanned) = timed(|| through_scan(&log));
        assert_eq!(answer, expected, "both say the same");
        fold.push(took);
        scan.push(scanned);
    }
    // The fastest round: what else the machine does only adds.
    let (fold, scan) = (fold.iter().min().copied().unwrap_or_default(), scan.iter().min().copied().unwrap_or_default());
    let each = |took: Duration| took.as_nanos() as f64 / lines as f64;
    println!("{lines} lines, {} MB, {CLASSES} classes, {} viewers", log.len() / 1_000_000, CLASSES * VIEWERS);
    println!(
        "fold {:.0} ns a line, scan {:.0} ns a line, ratio {:.2}",
        each(fold),
        each(scan),
        each(fold) / each(scan)
    );
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn timed<T>(work: impl Fn() -> T) -> (T, Duration) {
    let started = Instant::now();
    let answer = work();
    (answer, started.elapsed())
}

/// Players of HLS with segments of 2 s, as hls.js reports in v1; some starve.
fn generate(lines: u64) -> String {
    let mut out = String::new();
    for number in 0..lines {
        let (class, viewer) = (number % CLASSES, number / CLASSES % VIEWERS);
        let millis = number * 2_000 / (CLASSES * VIEWERS);
        let segment = millis / 2_000;
        let (bl, sign) = if (number * 7 + segment).is_multiple_of(97) { (100, "bs%2C") } else { (4_300, "") };
        writeln!(
            out,
            "{{\"t\":{}.{:03},\"rt\":0.002,\"st\":200,\"b\":{},\"w\":400300,\"u\":\"/hls/class{class}/{segment}.ts\",\"q\":\"bl%3D{bl}%2Cbr%3D1500%2C{sign}cid%3D%22class{class}%22%2Cd%3D2000%2Cdl%3D{bl}%2Cmtp%3D37500%2Crtp%3D0%2Csf%3Dh%2Csid%3D%2200000000-0000-4000-8000-{:012}%22%2Cst%3Dl\",\"s\":\"\",\"r\":\"\",\"o\":\"\",\"a\":\"\",\"rtt_us\":40357,\"rttvar_us\":83,\"cwnd\":313}}",
            1_800_000_000 + millis / 1_000,
            millis % 1_000,
            400_000 + number % 1_000,
            class * VIEWERS + viewer,
        )
        .expect("a String takes all");
    }
    out
}

fn through_fold(log: &str) -> Answer {
    let format = LogFormat::json([]).expect("the usual names");
    let mut fold = LogFold::new(format, ClassRule::Path(None), "bench".into(), [1, 2]);
    let mut bytes = BTreeMap::new();
    let mut window = None;
    let mut close = |fold: &mut LogFold, at: Timestamp| {
        for observation in fold.drain(at + GRID) {
            if let Fact::Players(view) = observation.fact {
                let key = (observation.stream.as_str().to_owned(), at.millis());
                *bytes.entry(key).or_insert(0) += view.bytes.unwrap_or(0);
            }
        }
    };
    for line in log.as_bytes().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        // The instant of the next line is known before it is folded, so that a window closes first, as in a replay.
        let opened = fold.open(line).expect("a clean line").expect("not empty");
        let at = opened.logged.floor(GRID);
        if let Some(was) = window.replace(at).filter(|was| *was != at) {
            close(&mut fold, was);
        }
        fold.fold(&opened).expect("a clean line");
    }
    if let Some(was) = window {
        close(&mut fold, was);
    }
    let (_, _, _, counts) = fold.counts();
    (bytes, counts.requests, fold.sizes().0)
}

/// What one writes in an afternoon for this log: it knows every place by heart, keeps the viewers' names, and finds no stall.
fn through_scan(log: &str) -> Answer {
    let mut windows: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    let mut viewers = HashSet::new();
    let mut requests = 0;
    let part = |text: &'static str| move |line| between(line, text);
    let (time, size, path, sid) = (part("\"t\":"), part("\"b\":"), part("/hls/"), part("sid%3D%22"));
    for line in log.lines() {
        let seconds: u64 = time(line).parse().expect("digits");
        let key = (path(line), seconds / 5 * 5_000);
        *windows.entry(key).or_insert(0) += size(line).parse::<u64>().expect("digits");
        viewers.insert(sid(line));
        requests += 1;
    }
    let windows = windows.into_iter().map(|((class, at), bytes)| ((format!("hls/{class}"), at), bytes)).collect();
    (windows, requests, viewers.len())
}

fn between<'a>(line: &'a str, before: &str) -> &'a str {
    let rest = line.split_once(before).map_or("", |(_, rest)| rest);
    &rest[..rest.find(['.', ',', '/', '%']).unwrap_or(rest.len())]
}

const CLASSES: u64 = 50;
const VIEWERS: u64 = 40;
const ROUNDS: usize = 5;
