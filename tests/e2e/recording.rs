//! Recordings of a daemon replayed: the same samples and notices, and as many as possible from damaged files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::time::Duration;

use liveqos::players::Key;
use liveqos_core::model::{Notice, Timestamp};
use liveqos_core::recording::{Event, Head, Playback};
use liveqos_testkit::daemon::{Daemon, Launch, NO_DISCOVERY, file, run_liveqos, text};
use liveqos_testkit::named_cause::named_cause;
use liveqos_testkit::wait::until_blocking;
use serde_json::Value;

const KEY: &str = "a key of at least thirty-two bytes";

/// Standard output as JSON, and standard error.
fn replay(path: &Path, more: &[&str]) -> (Vec<Value>, String) {
    let path = path.to_str().expect("a plain path");
    let output = run_liveqos(&[&["replay", "--json", path], more].concat());
    assert!(output.status.success(), "{output:?}");
    let lines = text(&output.stdout);
    (lines.lines().map(|line| serde_json::from_str(line).expect("json")).collect(), text(&output.stderr))
}

fn post(daemon: &Daemon, session: &str, (viewer, sequence): (u32, u32), stalled: f64) {
    let expiry = Timestamp::from_secs(4_000_000_000);
    let token = Key::new(KEY.as_bytes()).expect("long enough").sign(session, expiry);
    let body = format!(
        r#"{{"sessionId":"{session}","viewer":"v{viewer}","sequence":{sequence},"protocol":"webrtc","exposure":2,
        "totalFreezesDuration":{stalled},"freezeCount":1,"framesDecoded":50,"packetsReceived":197,"packetsLost":0,"bytesReceived":250000}}"#
    );
    let bearer = format!("authorization: Bearer {token}\r\n");
    let (status, _, response) = daemon.ask_with("POST", "/v1/beacon", &bearer, &body);
    assert_eq!(status, 204, "{response}");
}

/// Records a class that is healthy and then stalls to `path`; the samples and alerts of its daemon.
fn recorded(path: &Path) -> (Vec<Value>, Vec<Value>) {
    let key = file(KEY);
    let config = format!(
        "[beacon]\nkey_file = \"{}\"\n[ingest]\nburst = 10000\nrate_per_second = 10000\n",
        key.path().display()
    );
    let flags = ["--record", path.to_str().expect("a plain path")];
    let daemon = Launch::new(&config).flags(&flags).variables(NO_DISCOVERY).start();
    let about = r#"{"course_id":"c9","teacher_id":"teacher-of-nobody","stream":"live/class101"}"#;
    assert_eq!(daemon.ask("PUT", "/api/v1/sessions/class101", about).0, 200);
    let (mut sequence, mut last) = (0, None);
    until_blocking("an alert and some time after it", || {
        let stalled = if sequence < 24 { 0.0 } else { 0.6 };
        (0..5).for_each(|viewer| post(&daemon, "class101", (sequence * 5 + viewer, sequence), stalled));
        std::thread::sleep(Duration::from_millis(250));
        let alerts = alerts(&daemon);
        // The machine may be busy with other tests, which is an alert of its own.
        if last.is_none() && alerts.iter().any(|alert| alert["alertname"] == "LiveStutterHigh") {
            last = Some(sequence + 24);
        }
        sequence += 1;
        (last == Some(sequence - 1)).then_some(())
    });
    let alerts = alerts(&daemon);
    let samples = daemon.ask_json("/api/v1/sessions/class101/samples")["samples"].as_array().cloned().expect("samples");
    // Until the file has them; then the daemon is killed.
    until_blocking("samples and alerts in the recording", || {
        let (played, _) = replay(path, &[]);
        holds(&played, &samples, &alerts).is_ok().then_some(())
    });
    (samples, alerts)
}

fn alerts(daemon: &Daemon) -> Vec<Value> {
    daemon.ask_json("/api/v1/alerts")["alerts"].as_array().cloned().expect("alerts")
}

/// Whether a replay has all these samples and alerts; else what is missing.
fn holds(played: &[Value], samples: &[Value], alerts: &[Value]) -> Result<(), String> {
    let again: Vec<Value> = played
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
    let alert = alerts.iter().find(|alert| !played.iter().any(|line| line["notice"] == **alert));
    let sample = samples.iter().find(|sample| !again.contains(sample));
    alert.or(sample).map_or(Ok(()), |missing| Err(format!("{missing} is not in {played:?}")))
}

#[test]
fn a_replay_gives_the_samples_and_alerts_of_the_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("day.jsonl.gz");
    let (samples, alerts) = recorded(&path);
    let (played, errors) = replay(&path, &[]);
    assert!(samples.len() >= 2 && !alerts.is_empty(), "{samples:?} {alerts:?}");
    holds(&played, &samples, &alerts).expect("the replay is complete");
    assert!(
        errors.contains("0 lines skipped") && errors.contains("truncated after line"),
        "the daemon was killed: {errors}"
    );
    // The same a second time, and other alerts by other objectives.
    assert_eq!(replay(&path, &[]).0, played);
    let mild = file("[objectives]\nstutter_ratio = 0.9\n");
    let (mild, _) = replay(&path, &["--config", mild.path().to_str().expect("a plain path")]);
    assert!(mild.iter().all(|line| line["notice"]["alertname"] != "LiveStutterHigh"), "{mild:?}");

    let mut text = String::new();
    let unpacked = flate2::read::MultiGzDecoder::new(fs::File::open(&path).expect("it is there"));
    // It is torn at its end.
    std::io::BufReader::new(unpacked).read_to_string(&mut text).unwrap_err();
    assert!(text.contains("class101") && !text.contains("teacher-of-nobody"));
    assert!(!text.contains("127.0.0.1") && !text.contains("\"v1\""), "no viewer can be identified");
    damaged(folder.path(), &text, &played);
}

/// Replays a complete and damaged copies of a recording.
fn damaged(folder: &Path, text: &str, played: &[Value]) {
    let whole: Vec<&str> = text.lines().collect();
    let whole = &whole[..whole.len() - 1];
    let path = folder.join("plain.jsonl");
    let write = |lines: &[&str]| fs::write(&path, lines.join("\n")).expect("room on the disk");
    write(whole);
    let (again, errors) = replay(&path, &[]);
    assert!(played.starts_with(&again) && again.len() + 2 >= played.len(), "{} of {}", again.len(), played.len());
    assert!(errors.contains("0 lines skipped\nthe recording has no end"), "{errors}");
    let long = "x".repeat(1 << 21);
    let mut bad = whole.to_vec();
    bad.splice(3..3, ["{\"observed\":{\"source\":7}}", "\u{0}\u{1}", "{\"what\":1}", long.as_str()]);
    write(&bad);
    let (again, errors) = replay(&path, &[]);
    assert!(played.starts_with(&again) && again.len() + 2 >= played.len(), "other lines are replayed: {errors}");
    for mark in
        ["line 4: not a line of a recording", "line 6: ", "line 7: longer than 1048576 bytes", "4 lines skipped"]
    {
        assert!(errors.contains(mark), "{mark}: {errors}");
    }
    let newer = whole[0].replace("{\"liveqos_recording\":1", "{\"liveqos_recording\":9");
    write(&[&newer]);
    let plain = path.to_str().expect("a plain path");
    let refused = run_liveqos(&["replay", plain]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text_of(&refused).contains("line 1: written in format 9"), "{refused:?}");
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/core/fixtures/cmcd/h-rate1000.access.jsonl");
    let both = run_liveqos(&["replay", log, plain]);
    assert!(both.status.code() == Some(1) && text_of(&both).contains("replay it alone"), "{both:?}");
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stderr)
}

/// Recorded real faults in real media (`tests/faults`): the rules of today name the causes they are labelled with.
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
            let (cause, why) = named_cause(&notices, class, onset).expect("an alert");
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
    let events = lines.map(|line| Event::read(line.expect("whole").as_bytes()).expect("an event"));
    events.filter_map(|event| playback.play(event)).flat_map(|tick| tick.notices).collect()
}

#[test]
fn a_replay_gives_the_samples_and_alerts_of_the_demonstration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("demo.jsonl");
    let plain = path.to_str().expect("a plain path");
    let flags = ["demo", "--seconds", "20", "--viewers", "5", "--listen", "127.0.0.1:0", "--record", plain];
    let output = run_liveqos(&flags);
    assert!(output.status.success(), "{output:?}");
    let screen = text(&output.stdout);
    let again = run_liveqos(&["replay", plain]);
    let (played, errors) = (text(&again.stdout), text(&again.stderr));
    // The script's own lines name a bandwidth too.
    let samples: Vec<&str> = screen.lines().filter(|line| !line.contains("fault: ")).filter_map(figures).collect();
    assert!(samples.len() >= 2, "{screen}");
    for sample in samples {
        assert!(played.lines().filter_map(figures).any(|line| line == sample), "{sample} is not in {played}");
    }
    for alert in screen.lines().filter_map(|line| line.split("ALERT ").nth(1)?.split(' ').next()) {
        assert!(played.contains(&format!("Firing {alert}")), "{alert} is not in {played}");
    }
    assert!(errors.contains(" 0 lines skipped") && !errors.contains("no end"), "{errors}");
}

/// The figures of a line, without the text before them.
fn figures(line: &str) -> Option<&str> {
    let end = line.find(" kbit/s")?;
    let begin = line[..end].rfind(' ')?;
    Some(&line[begin..])
}
