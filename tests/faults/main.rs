//! Real faults in real media: nodes with classes of the demonstration, each fault with its label, judged by the real
//! rules while it lasts. Prints the confusion matrix of docs/alerts.md with the evidence, and keeps every run as a
//! recording under the target folder.
//!
//! `cargo test --test faults -- --nocapture`, about ten minutes on a machine that is not busy otherwise; `RUNS=1` for
//! less.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]
#![expect(clippy::print_stdout, reason = "it prints its table")]

mod fault;
mod node;

use std::path::Path;

use fault::{FAULTS, Fault};
use liveqos::platform::clock;
use liveqos_core::model::Cause;
use node::Node;
use tokio::task::JoinSet;

/// One fault: what each of the classes that it is in was said to suffer from, with the words for it.
struct Answer {
    label: Cause,
    said: Option<(Cause, String)>,
}

async fn run(fault: &'static Fault, seed: u64, folder: std::path::PathBuf) -> Vec<Answer> {
    let path = folder.join(format!("{}-{seed}.jsonl.gz", fault.name.replace([' ', ','], "-")));
    let mut node = Node::start(seed, &path).await;
    node.play(WARM_SECONDS).await;
    let onset = clock::now();
    let hurt = fault.begin(&node);
    node.play(FAULT_SECONDS).await;
    let answers =
        hurt.iter().map(|(class, label)| Answer { label: *label, said: node.named_cause(*class, onset) }).collect();
    node.stop(&hurt, onset).await;
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn causes_of_real_faults_are_named_right() {
    let runs: u64 = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let wanted = std::env::var("FAULT").unwrap_or_default();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
    std::fs::create_dir_all(&folder).unwrap();
    let mut rows = Vec::new();
    for fault in FAULTS.iter().filter(|fault| fault.name.contains(&wanted)) {
        // The runs of one fault at once: what they share is the machine.
        let mut nodes: JoinSet<Vec<Answer>> = (0..runs).map(|seed| run(fault, seed, folder.clone())).collect();
        let mut answers = Vec::new();
        while let Some(more) = nodes.join_next().await {
            answers.extend(more.unwrap());
        }
        for answer in &answers {
            let (cause, why) = answer.said.as_ref().map_or(("not told", ""), |(cause, why)| (cause.as_str(), why));
            println!("{}: {} is called {cause}: {why}", fault.name, answer.label.as_str());
        }
        rows.push((fault.name, answers));
    }
    let (right, told, played) = matrix(&rows);
    assert!(told * 10 >= played * 8 && right * 10 >= told * 8, "{right} of {told} right, {played} played");
}

fn matrix(rows: &[(&str, Vec<Answer>)]) -> (usize, usize, usize) {
    let causes = [Cause::Publisher, Cause::Node, Cause::EdgePath, Cause::ViewersAccess, Cause::Player, Cause::Unknown];
    println!("| fault | {} | not told |", causes.map(Cause::as_str).join(" | "));
    let (mut right, mut told, mut played) = (0, 0, 0);
    for (name, answers) in rows {
        let mut labels: Vec<Cause> = answers.iter().map(|answer| answer.label).collect();
        labels.sort_by_key(|cause| cause.as_str());
        labels.dedup();
        for label in labels {
            let of: Vec<_> = answers.iter().filter(|answer| answer.label == label).collect();
            let called = |cause| of.iter().filter(|a| a.said.as_ref().is_some_and(|(said, _)| *said == cause)).count();
            let untold = of.iter().filter(|answer| answer.said.is_none()).count();
            println!(
                "| {}: {name} | {} | {untold} |",
                label.as_str(),
                causes.map(|c| called(c).to_string()).join(" | ")
            );
            right += called(label);
            told += of.len() - untold;
            played += of.len();
        }
    }
    println!("{right} of {told} told right, {played} played");
    (right, told, played)
}

/// Until the usual course of publishers and viewers is known.
const WARM_SECONDS: u64 = 33;
const FAULT_SECONDS: u64 = 22;
