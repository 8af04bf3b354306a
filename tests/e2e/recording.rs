//! What a daemon recorded, told again: the same samples and notices, from good files, and what can be had from bad
//! ones.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use liveqos::players::Key;
use liveqos_core::model::{Notice, Timestamp};
use liveqos_core::recording::{Event, Head, Playback};
use serde_json::Value;

use super::cli::{Daemon, file, run, text};
use crate::support::said::said;

const KEY: &str = "a key of at least thirty-two bytes";

/// Standard output as JSON, and standard error.
fn replay(path: &Path, more: &[&str]) -> (Vec<Value>, String) {
    let path = path.to_str().expect("a plain path");
    let output = run(&[&["replay", "--json", path], more].concat());
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stdout);
    (told.lines().map(|line| serde_json::from_str(line).expect("json")).collect(), text(&output.stderr))
}

fn post(daemon: &Daemon, session: &str, (viewer, sequence): (u32, u32), stalled: f64) {
    let expiry = Timestamp::from_secs(4_000_000_000);
    let token = Key::new(KEY.as_bytes()).expect("long enough").sign(session, expiry);
    let body = format!(
        r#"{{"sessionId":"{session}","viewer":"v{viewer}","sequence":{sequence},"protocol":"webrtc","exposure":2,
        "totalFreezesDuration":{stalled},"freezeCount":1,"framesDecoded":50,"packetsReceived":197,"packetsLost":0,"bytesReceived":250000}}"#
    );
    let bearer = format!("authorization: Bearer {token}\r\n");
    let (status, _, said) = daemon.ask_with("POST", "/v1/beacon", &bearer, &body);
    assert_eq!(status, 204, "{said}");
}

fn get(daemon: &Daemon, path: &str) -> Value {
    serde_json::from_str(&daemon.ask("GET", path, "").1).expect("json")
}

/// A class that is well and then stalls, recorded to `path`; the samples and the alerts that its daemon told.
fn recorded(path: &Path) -> (Vec<Value>, Vec<Value>) {
    let key = file(KEY);
    let config = format!(
        "[beacon]\nkey_file = \"{}\"\n[ingest]\nburst = 10000\nrate_per_second = 10000\n",
        key.path().display()
    );
    let daemon = Daemon::start_with_flags(&config, &["--record", path.to_str().expect("a plain path")]);
    let about = r#"{"course_id":"c9","teacher_id":"teacher-of-nobody","stream":"live/class101"}"#;
    assert_eq!(daemon.ask("PUT", "/api/v1/sessions/class101", about).0, 200);
    let began = Instant::now();
    let mut last = None;
    for sequence in 0.. {
        let stalled = if sequence < 24 { 0.0 } else { 0.6 };
        (0..5).for_each(|viewer| post(&daemon, "class101", (sequence * 5 + viewer, sequence), stalled));
        std::thread::sleep(Duration::from_millis(250));
        let alerts = get(&daemon, "/api/v1/alerts")["alerts"].as_array().cloned().unwrap_or_default();
        // The machine may be busy with other tests, which is an alert of its own.
        if last.is_none() && alerts.iter().any(|alert| alert["alertname"] == "LiveStutterHigh") {
            last = Some(sequence + 24);
        }
        assert!(began.elapsed() < Duration::from_mins(1), "nothing was told");
        if last == Some(sequence) {
            break;
        }
    }
    let alerts = get(&daemon, "/api/v1/alerts")["alerts"].as_array().cloned().expect("alerts");
    let samples = get(&daemon, "/api/v1/sessions/class101/samples")["samples"].as_array().cloned().expect("samples");
    // What was told is on its way to the file for two seconds at most; then the daemon is killed.
    std::thread::sleep(Duration::from_secs(4));
    (samples, alerts)
}

#[test]
fn a_recording_tells_what_its_daemon_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("day.jsonl.gz");
    let (samples, alerts) = recorded(&path);
    let (told, said) = replay(&path, &[]);
    assert!(samples.len() >= 2 && !alerts.is_empty(), "{samples:?} {alerts:?}");
    for alert in &alerts {
        assert!(told.iter().any(|line| line["notice"] == *alert), "{alert} is not in {told:?}");
    }
    let again: Vec<Value> = told
        .iter()
        .filter(|line| line["session_id"] == "class101")
        .map(|line| {
            let mut line = line.clone();
            let fields = line.as_object_mut().expect("a sample");
            fields.remove("session_id");
            fields.remove("stream");
            line
        })
        .collect();
    assert!(samples.iter().all(|sample| again.contains(sample)), "{samples:?}\n{again:?}");
    assert!(said.contains("0 lines left out") && said.contains("torn after line"), "the daemon was killed: {said}");
    // The same again, and by other limits.
    assert_eq!(replay(&path, &[]).0, told);
    let mild = file("[objectives]\nstutter_ratio = 0.9\n");
    let (mild, _) = replay(&path, &["--config", mild.path().to_str().expect("a plain path")]);
    assert!(mild.iter().all(|line| line["notice"]["alertname"] != "LiveStutterHigh"), "{mild:?}");

    let mut text = String::new();
    let unpacked = flate2::read::MultiGzDecoder::new(fs::File::open(&path).expect("it is there"));
    // Torn at its end.
    std::io::BufReader::new(unpacked).read_to_string(&mut text).unwrap_err();
    assert!(text.contains("class101") && !text.contains("teacher-of-nobody"));
    assert!(!text.contains("127.0.0.1") && !text.contains("\"v1\""), "who watched is not in it");
    damaged(folder.path(), &text, &told);
}

/// Whole and damaged copies of a recording.
fn damaged(folder: &Path, text: &str, told: &[Value]) {
    let whole: Vec<&str> = text.lines().collect();
    let whole = &whole[..whole.len() - 1];
    let path = folder.join("plain.jsonl");
    let write = |lines: &[&str]| fs::write(&path, lines.join("\n")).expect("room on the disk");
    write(whole);
    let (again, said) = replay(&path, &[]);
    assert!(told.starts_with(&again) && again.len() + 2 >= told.len(), "{} of {}", again.len(), told.len());
    assert!(said.contains("0 lines left out\nit has no end"), "{said}");
    let long = "x".repeat(1 << 21);
    let mut bad = whole.to_vec();
    bad.splice(3..3, ["{\"observed\":{\"source\":7}}", "\u{0}\u{1}", "{\"what\":1}", long.as_str()]);
    write(&bad);
    let (again, said) = replay(&path, &[]);
    assert!(told.starts_with(&again) && again.len() + 2 >= told.len(), "the rest goes on: {said}");
    for mark in
        ["line 4: not a line of a recording", "line 6: ", "line 7: longer than 1048576 bytes", "4 lines left out"]
    {
        assert!(said.contains(mark), "{mark}: {said}");
    }
    let newer = whole[0].replace("{\"liveqos_recording\":1", "{\"liveqos_recording\":9");
    write(&[&newer]);
    let plain = path.to_str().expect("a plain path");
    let refused = run(&["replay", plain]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text_of(&refused).contains("line 1: written in form 9"), "{refused:?}");
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/core/fixtures/cmcd/h-rate1000.access.jsonl");
    let both = run(&["replay", log, plain]);
    assert!(both.status.code() == Some(1) && text_of(&both).contains("is replayed alone"), "{both:?}");
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stderr)
}

/// Real faults in real media (`tests/faults`), recorded: named as they were labelled, by the rules of today.
#[test]
fn recorded_faults_are_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut causes = BTreeSet::new();
    for path in files.filter(|path| path.extension().is_some_and(|ending| ending == "gz")) {
        let labels = path.with_extension("").with_extension("labels.json");
        let labels: Value = serde_json::from_str(&fs::read_to_string(labels).expect("labels")).expect("json");
        let onset = Timestamp::from_nanos(labels["onset"].as_u64().expect("an instant"));
        let notices = played(&path);
        for label in labels["labels"].as_array().expect("a list") {
            let class = label["session_id"].as_str().expect("a class");
            let (cause, why) = said(&notices, class, onset).expect("it was told");
            assert_eq!(label["cause"], cause.as_str(), "{}: {class}: {why}", path.display());
            causes.insert(cause.as_str());
        }
    }
    assert_eq!(causes.len(), 4, "all but the node: {causes:?}");
}

fn played(path: &Path) -> Vec<Notice> {
    let file = fs::File::open(path).expect("it is there");
    let mut lines = std::io::BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    let head = Head::read(lines.next().expect("a first line").expect("whole").as_bytes()).expect("a head");
    let mut playback = Playback::new(&head, None);
    let words = lines.map(|line| Event::read(line.expect("whole").as_bytes()).expect("a word"));
    words.filter_map(|word| playback.play(word)).flat_map(|tick| tick.notices).collect()
}

#[test]
fn the_demonstration_is_told_again_by_its_recording() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("demo.jsonl");
    let plain = path.to_str().expect("a plain path");
    let flags = ["demo", "--seconds", "20", "--viewers", "5", "--listen", "127.0.0.1:0", "--record", plain];
    let output = run(&flags);
    assert!(output.status.success(), "{output:?}");
    let screen = text(&output.stdout);
    let again = run(&["replay", plain]);
    let (told, said) = (text(&again.stdout), text(&again.stderr));
    let samples: Vec<&str> = screen.lines().filter(|line| line.contains(" kb/s")).filter_map(figures).collect();
    assert!(samples.len() >= 2, "{screen}");
    for sample in samples {
        assert!(told.lines().filter_map(figures).any(|line| line == sample), "{sample} is not in {told}");
    }
    for alert in screen.lines().filter_map(|line| line.split("ALERT ").nth(1)?.split(' ').next()) {
        assert!(told.contains(&format!("Firing {alert}")), "{alert} is not in {told}");
    }
    assert!(said.contains(" 0 lines left out") && !said.contains("no end"), "{said}");
}

/// The figures of a line, without what stands before them.
fn figures(line: &str) -> Option<&str> {
    let end = line.find(" kb/s")?;
    let begin = line[..end].rfind(' ')?;
    Some(&line[begin..])
}
