//! One test for all kinds: what each saved answer must yield, and that no broken one does harm. A new kind is found by
//! its entry in the list and its folder; nothing needs editing here.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::{Path, PathBuf};

use liveqos_core::model::{Fact, Observation, ServerView, SourceName, Timestamp, Total};
use liveqos_probes::KINDS;
use liveqos_probes::probe::{Hook, Intake, Kind, MAX_ROUND, Probe, ProbeError, Reply, Request};
use proptest::prelude::*;

/// The instant of every case's start, in seconds since the epoch.
const START: u64 = 1_795_405_614;

/// A saved input of a case.
#[derive(Clone, Debug)]
struct Input {
    /// Seconds after the case's start.
    second: u64,
    /// What its request's path contains; `hooks` for a posted body.
    part: String,
    query: String,
    body: Vec<u8>,
}

#[test]
fn every_kind_has_its_fixtures() {
    for kind in KINDS {
        let folder = folder(kind);
        assert!(folder.join("server.md").is_file(), "{}: which server gave its fixtures?", folder.display());
        let cases: Vec<String> = cases(kind).into_iter().map(|(name, _)| name).collect();
        assert!(!cases.is_empty(), "{} has no case", folder.display());
        for wanted in ["normal", "empty", "after-restart"] {
            let has = cases.iter().any(|case| case == wanted);
            assert!(has || kind.intake == Intake::Push, "{} has no case {wanted}", folder.display());
        }
    }
}

#[test]
fn every_setting_is_described_with_its_default() {
    for kind in KINDS {
        let schema = (kind.schema)();
        for (name, setting) in schema.as_value()["properties"].as_object().into_iter().flatten() {
            let about = setting["description"].as_str().unwrap_or_default();
            assert!(about.contains("Default: "), "{}: {name} does not name its default", kind.name);
        }
        assert_eq!(schema.as_value()["additionalProperties"], false, "{}: unknown keys are refused", kind.name);
    }
}

#[test]
fn fixtures_yield_their_snapshots() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for kind in KINDS {
        for (case, inputs) in cases(kind) {
            settings.bind(|| insta::assert_snapshot!(format!("{}-{case}", kind.name), text_of(kind, &inputs)));
        }
    }
}

#[test]
fn truncated_inputs_never_report_more() {
    for kind in KINDS {
        for (case, inputs) in cases(kind) {
            for place in 0..inputs.len() {
                let mut cut = with_round_before(&inputs, place);
                let body = cut.last().map(|input| input.body.clone()).expect("ends with the input");
                let whole = play(kind, &cut, |_| {});
                for length in 0..body.len() {
                    let last = cut.last_mut().expect("ends with the input");
                    last.body.clear();
                    last.body.extend_from_slice(&body[..length]);
                    let observed = play(kind, &cut, |_| {});
                    let case = format!("{} {case}: input {place} cut to {length} bytes", kind.name);
                    assert!(observed.len() <= whole.len(), "{case} reports more");
                    assert!(gone(&observed) <= gone(&whole), "{case} calls a stream gone");
                }
            }
        }
    }
}

/// The inputs up to `place`, from the round before its own.
fn with_round_before(inputs: &[Input], place: usize) -> Vec<Input> {
    let second = inputs[place].second;
    if inputs[place].part == "hooks" {
        return vec![inputs[place].clone()];
    }
    let before = inputs[..place].iter().map(|input| input.second).filter(|before| *before < second).max();
    let first = inputs.iter().position(|input| input.second == before.unwrap_or(second));
    inputs[first.unwrap_or(place)..=place].to_vec()
}

fn gone(observations: &[Observation]) -> usize {
    observations.iter().filter(|observation| observation.fact == Fact::Gone).count()
}

#[test]
fn a_cut_answer_is_an_error() {
    for kind in KINDS {
        for (case, inputs) in cases(kind).into_iter().filter(|(case, _)| case == "normal") {
            let mut first: Option<Input> = None;
            play(kind, &inputs, |step| {
                if let Step::Read(input, ..) = step {
                    first.get_or_insert_with(|| (*input).clone());
                }
            });
            let first = first.expect("the first question is answered");
            for length in 0..first.body.trim_ascii_end().len() {
                let mut cut = first.clone();
                cut.body.truncate(length);
                let mut errors = 0;
                let observed = play(kind, &[cut], |step| errors += usize::from(step.is_err()));
                assert_eq!((observed.len(), errors), (0, 1), "{} {case}: cut to {length} bytes", kind.name);
            }
        }
    }
}

thread_local! {
    /// Every case of every kind, read once for the properties.
    static SAVED: HashMap<&'static str, Vec<(String, Vec<Input>)>> =
        KINDS.iter().map(|kind| (kind.name, cases(kind))).collect();
}

fn saved(kind: &Kind) -> Vec<(String, Vec<Input>)> {
    SAVED.with(|saved| saved[kind.name].clone())
}

proptest! {
    #[test]
    fn any_bytes_are_tolerated(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..6)) {
        for kind in KINDS {
            survive(kind, &bodies);
        }
    }

    #[test]
    fn any_changed_byte_is_tolerated(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for kind in KINDS {
            for (_, mut inputs) in saved(kind) {
                for input in inputs.iter_mut().filter(|input| !input.body.is_empty()) {
                    let place = at.index(input.body.len());
                    input.body[place] = byte;
                }
                play(kind, &inputs, |_| {});
            }
        }
    }
}

fn survive(kind: &Kind, bodies: &[Vec<u8>]) {
    let source: SourceName = kind.name.into();
    let mut probe = build(kind);
    let mut out = Vec::new();
    let mut requests = probe.ask();
    for body in bodies {
        let at = Timestamp::from_secs(START);
        let hook = Hook { source: &source, at, query: &String::from_utf8_lossy(body), body };
        drop(probe.read_hook(&hook, &mut out));
        let tag = requests.pop().map_or(0, |request| request.tag);
        let reply = Reply { source: &source, tag, asked_at: at, body };
        requests.extend(probe.read(&reply, &mut out).unwrap_or_default());
    }
}

/// What happened at one step of a case.
enum Step<'a> {
    Asked(u64, &'a [Request]),
    Read(&'a Input, Result<(), &'a ProbeError>, &'a [Observation]),
}

impl Step<'_> {
    fn is_err(&self) -> bool {
        matches!(self, Self::Read(_, Err(_), _))
    }
}

/// Feeds a case's inputs to a new probe, second by second; a request without a saved answer gets none.
fn play(kind: &Kind, inputs: &[Input], mut see: impl FnMut(&Step<'_>)) -> Vec<Observation> {
    let source: SourceName = kind.name.into();
    let mut probe = build(kind);
    let mut all = Vec::new();
    for round in inputs.chunk_by(|one, other| one.second == other.second && one.part != "hooks") {
        let at = Timestamp::from_secs(START + round[0].second);
        let mut out = Vec::new();
        if round[0].part == "hooks" {
            let hook = Hook { source: &source, at, query: &round[0].query, body: &round[0].body };
            let result = probe.read_hook(&hook, &mut out);
            see(&Step::Read(&round[0], result.as_ref().copied(), &out));
            all.append(&mut out);
            continue;
        }
        let mut requests = probe.ask();
        let mut asked = 0;
        while !requests.is_empty() {
            see(&Step::Asked(round[0].second, &requests));
            asked += requests.len();
            assert!(asked <= MAX_ROUND, "a round is bounded");
            for request in std::mem::take(&mut requests) {
                let Some(input) =
                    round.iter().find(|input| request.path.is_empty() || request.path.contains(&input.part))
                else {
                    continue;
                };
                let reply = Reply { source: &source, tag: request.tag, asked_at: at, body: &input.body };
                let result = probe.read(&reply, &mut out);
                see(&Step::Read(input, result.as_ref().map(|_| ()), &out));
                requests.extend(result.unwrap_or_default());
                all.append(&mut out);
            }
        }
    }
    all
}

fn build(kind: &Kind) -> Box<dyn Probe> {
    (kind.build)(toml::Table::new()).expect("defaults are good")
}

fn folder(kind: &Kind) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(kind.name)
}

/// The folders of a kind, each with its inputs in order of time.
fn cases(kind: &Kind) -> Vec<(String, Vec<Input>)> {
    let mut cases: Vec<(String, Vec<Input>)> = entries(&folder(kind))
        .into_iter()
        .filter(|path| path.is_dir())
        .map(|path| (file_name(&path), entries(&path).iter().flat_map(|file| inputs(file)).collect()))
        .collect();
    cases.sort_by(|(one, _), (other, _)| one.cmp(other));
    cases
}

/// The inputs in one file: `05-streams.json` is one answer, `hooks.jsonl` has a posted body per line.
#[expect(clippy::disallowed_methods, reason = "the test brings the files, the probes read none")]
fn inputs(file: &Path) -> Vec<Input> {
    let name = file_name(file);
    let body = fs::read(file).expect("a fixture is readable");
    if name == "hooks.jsonl" {
        return String::from_utf8(body).expect("text").lines().map(hook).collect();
    }
    let (second, part) = name.split_once('-').expect("named <second>-<part>.<ext>");
    let part = part.split('.').next().unwrap_or_default().to_owned();
    let second = second.parse().expect("a number of seconds");
    vec![Input { second, part, query: String::new(), body }]
}

fn hook(line: &str) -> Input {
    let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
    let body = match line["body"].as_str() {
        Some(form) => form.to_owned(),
        None => line["json"].to_string(),
    };
    let second = line["t"].as_f64().map_or(0, |at| (at as u64).saturating_sub(START));
    let query = line["query"].as_str().unwrap_or_default().to_owned();
    Input { second, part: "hooks".to_owned(), query, body: body.into_bytes() }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = read.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("has a name").to_string_lossy().into_owned()
}

/// A case as text: requests, answers, and what was observed.
fn text_of(kind: &Kind, inputs: &[Input]) -> String {
    let mut text = String::new();
    let mut bases = HashMap::new();
    play(kind, inputs, |step| match step {
        Step::Asked(second, requests) => {
            for request in *requests {
                line(&mut text, &format!("{second} s: GET {}", request.path));
            }
        }
        Step::Read(input, result, observations) => {
            if input.part == "hooks" {
                let body: String = String::from_utf8_lossy(&input.body).into_owned();
                let call = ["call=", "\"action\":\""].iter().find_map(|key| body.split_once(key));
                let call = call.map_or("?", |(_, rest)| rest.split(['&', '"']).next().unwrap_or_default());
                line(&mut text, &format!("POST {call}"));
            }
            if let Err(error) = result {
                line(&mut text, &format!("  error: {error}"));
            }
            for observation in *observations {
                line(&mut text, &format!("  {} at {}", observation.stream, seconds(observation.at)));
                write_fact(&mut text, &observation.fact, &mut bases);
            }
        }
    });
    text
}

fn write_fact(text: &mut String, fact: &Fact, bases: &mut HashMap<u64, usize>) {
    match fact {
        Fact::Server(view) => write_view(text, view, bases),
        Fact::Gone => line(text, "    gone"),
        Fact::Described(class) => {
            line(text, "    described");
            field(text, "session_id", class.session_id.as_ref());
            field(text, "course_id", class.course_id.as_ref());
            field(text, "teacher_id", class.teacher_id.as_ref());
            field(text, "scenario", class.scenario);
            field(text, "student_count", class.student_count);
            field(text, "trace_parent", class.trace_parent.map(|parent| parent.to_string()));
            field(text, "stream_type", class.stream_type);
            field(text, "connection_id", class.connection_id.as_ref());
        }
        Fact::Path(view) => line(text, &format!("    {view:?}")),
        Fact::Players(view) => line(text, &format!("    {view:?}")),
    }
}

fn write_view(text: &mut String, view: &ServerView, bases: &mut HashMap<u64, usize>) {
    let mut total = |total: Option<Total>| {
        total.map(|total| {
            let next = bases.len();
            format!("{} on base {}", total.value, bases.entry(total.base).or_insert(next))
        })
    };
    let totals = [
        ("ingest_bytes", total(view.ingest_bytes)),
        ("ingest_frames", total(view.ingest_frames)),
        ("egress_bytes", total(view.egress_bytes)),
        ("dropped_messages", total(view.dropped_messages)),
    ];
    field(text, "publishing", view.publishing);
    field(text, "started", view.started.map(seconds));
    field(text, "ingest_protocol", view.ingest_protocol);
    for (name, total) in totals {
        field(text, name, total);
    }
    field(text, "steps", Some((view.bytes_step, view.frames_step)));
    field(text, "declared_fps", view.declared_fps);
    field(text, "viewers", view.viewers.as_ref());
    for client in &view.clients {
        let role = if client.publisher { "publisher" } else { "viewer" };
        let started = client.started.map_or_else(|| "unknown".to_owned(), seconds);
        line(text, &format!("    {role} {} {:?} since {started}", client.address, client.protocol));
    }
    field(text, "partial", view.partial.then_some(true));
}

fn field(text: &mut String, name: &str, value: Option<impl Debug>) {
    if let Some(value) = value {
        line(text, &format!("    {name}: {value:?}"));
    }
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("writing to a string does not fail");
}

/// An instant as seconds after the case's start.
fn seconds(at: Timestamp) -> String {
    format!("{:+.3} s", at.seconds() - Timestamp::from_secs(START).seconds())
}
