//! Real faults in real media: nodes with classes of the demonstration, each fault with its label, evaluated by the
//! real rules while it lasts. Prints the confusion matrix of docs/alerts.md with the evidence, and keeps every run as a
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

/// One fault: the cause named for each of its classes, with the evidence.
struct Answer {
    label: Cause,
    named: Option<(Cause, String)>,
}

async fn run(fault: &'static Fault, seed: u64, folder: std::path::PathBuf) -> Vec<Answer> {
    let path = folder.join(format!("{}-{seed}.jsonl.gz", fault.name.replace([' ', ','], "-")));
    let mut node = Node::start(seed, &path).await;
    node.play(WARM_SECONDS).await;
    let onset = clock::now();
    let hurt = fault.begin(&node);
    node.play(FAULT_SECONDS).await;
    let answers =
        hurt.iter().map(|(class, label)| Answer { label: *label, named: node.named_cause(*class, onset) }).collect();
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
            let (cause, why) = answer.named.as_ref().map_or(("not raised", ""), |(cause, why)| (cause.as_str(), why));
            println!("{}: {} is named {cause}: {why}", fault.name, answer.label.as_str());
        }
        rows.push((fault.name, answers));
    }
    let (right, alerted, played) = matrix(&rows);
    assert!(alerted * 10 >= played * 8 && right * 10 >= alerted * 8, "{right} of {alerted} right, {played} played");
}

fn matrix(rows: &[(&str, Vec<Answer>)]) -> (usize, usize, usize) {
    let causes = [Cause::Publisher, Cause::Node, Cause::EdgePath, Cause::ViewersAccess, Cause::Player, Cause::Unknown];
    println!("| fault | {} | not raised |", causes.map(Cause::as_str).join(" | "));
    let (mut right, mut alerted, mut played) = (0, 0, 0);
    for (name, answers) in rows {
        let mut labels: Vec<Cause> = answers.iter().map(|answer| answer.label).collect();
        labels.sort_by_key(|cause| cause.as_str());
        labels.dedup();
        for label in labels {
            let of: Vec<_> = answers.iter().filter(|answer| answer.label == label).collect();
            let called =
                |cause| of.iter().filter(|a| a.named.as_ref().is_some_and(|(named, _)| *named == cause)).count();
            let silent = of.iter().filter(|answer| answer.named.is_none()).count();
            println!(
                "| {}: {name} | {} | {silent} |",
                label.as_str(),
                causes.map(|c| called(c).to_string()).join(" | ")
            );
            right += called(label);
            alerted += of.len() - silent;
            played += of.len();
        }
    }
    println!("{right} of {alerted} named right, {played} played");
    (right, alerted, played)
}

/// Until the usual course of publishers and viewers is known.
const WARM_SECONDS: u64 = 33;
const FAULT_SECONDS: u64 = 22;
