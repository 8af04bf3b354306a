//! The long tables of docs/alerts.md, docs/performance.md and decision 0009, from simulated classes (`tests/corpus`):
//!
//! `cargo run -p liveqos-core --release --example alert_tables -- causes|choice|onsets|false-alarms`
//!
//! Minutes each on one core. Two check what the guides promise and end with an error where it does not hold.

#![expect(clippy::print_stdout, reason = "it prints tables")]

mod other_rules;
#[path = "../../tests/corpus/simulation/mod.rs"]
#[expect(dead_code, reason = "the tests of the corpus use more of it")]
mod simulation;

use liveqos_core::alert::EvidenceRule;
use other_rules::{Cusum, Ours, TwoErrors};
use simulation::crowd::{Crowd, Habit};
use simulation::dice::Dice;
use simulation::named_cause::matrix;
use simulation::plain_rule::{Plain, Rule};
use simulation::stutter::{HABITS, at, delays as evaluator_delays, healthy};

fn main() {
    let tables: [(&str, fn()); 4] =
        [("causes", causes), ("choice", choice), ("onsets", onsets), ("false-alarms", false_alarms_by_size)];
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| tables.iter().any(|(table, _)| table == name);
    assert!(!wanted.is_empty() && wanted.iter().all(known), "usage: alert_tables causes|choice|onsets|false-alarms");
    for (_, table) in tables.iter().filter(|(name, _)| wanted.iter().any(|wanted| wanted == name)) {
        table();
    }
}

/// The table of docs/alerts.md.
fn causes() {
    let (right, alerted, _) = matrix(100..160);
    assert!(right * 100 >= alerted * 80, "{right} of {alerted}");
}

const SIZES: [u32; 7] = [5, 10, 20, 50, 150, 1_000, 50_000];

const BASE: f64 = 0.003;

/// Alarms in `hours` healthy hours; those within a minute of the last one count once.
fn false_alarms(mut rule: Box<dyn Rule>, viewers: u32, habit: &Habit, (hours, seed): (u64, u64)) -> u64 {
    let (mut crowd, mut dice) = (Crowd::default(), Dice::new(seed));
    let (mut alarms, mut quiet) = (0, 0_u32);
    for _ in 0..hours * 14_400 {
        let over = rule.tick(crowd.tick(viewers, habit, &mut dice));
        if over && quiet == 0 {
            alarms += 1;
        }
        quiet = if over { 240 } else { quiet.saturating_sub(1) };
    }
    alarms
}

/// Delays of `onsets` onsets in milliseconds, sorted: a minute where there was no alarm, and none where there was one
/// before the onset.
fn delays(rule: &dyn Fn() -> Box<dyn Rule>, viewers: u32, habit: &Habit, (ratio, onsets): (f64, u64)) -> Vec<u64> {
    let mut delays = Vec::new();
    for seed in 1..=onsets {
        let (mut rule, mut crowd, mut dice) = (rule(), Crowd::default(), Dice::new(seed));
        let early =
            (0..1_200).filter(|tick| rule.tick(crowd.tick(viewers, habit, &mut dice)) && *tick > 960).count() > 0;
        if early {
            continue;
        }
        let fault = Habit { ratio, ..*habit };
        let alarmed = (1..=240_u64).find(|_| rule.tick(crowd.tick(viewers, &fault, &mut dice)));
        delays.push(alarmed.unwrap_or(240) * 250);
    }
    delays.sort_unstable();
    delays
}

/// Makes a new rule.
type Maker = Box<dyn Fn() -> Box<dyn Rule>>;

fn rules(length: f64) -> Vec<(&'static str, Maker)> {
    let ours = |proof: f64| -> Box<dyn Fn() -> Box<dyn Rule>> {
        let rule: &'static EvidenceRule =
            Box::leak(Box::new(EvidenceRule { whole: 60.0, occurrence: 5.0, length: 0.2, timed: true, proof }));
        Box::new(move || Box::new(Ours::new(rule)))
    };
    vec![
        ("plain 1 %", Box::new(|| Box::new(Plain::default()))),
        ("two errors", Box::new(|| Box::new(TwoErrors::default()))),
        ("CUSUM 12", Box::new(move || Box::new(Cusum::new(length, 12.0)))),
        ("ours 17", ours(17.0)),
        ("ours 14", ours(14.0)),
    ]
}

/// The table of decision 0009.
fn choice() {
    let hours: u64 = 200;
    for (viewers, length, together, steady) in [
        (10, 0.2, 1.0, true),
        (10, 0.5, 1.0, false),
        (10, 2.0, 1.0, false),
        (20, 0.5, 1.0, false),
        (50, 0.5, 1.0, false),
        (150, 0.2, 1.0, true),
        (150, 0.5, 1.0, false),
        (150, 2.0, 1.0, false),
        (150, 0.5, 4.0, false),
        (20, 0.5, 3.0, false),
        (1000, 0.5, 10.0, false),
    ] {
        let habit = Habit { ratio: BASE, length, steady, together };
        println!("{viewers} viewers, stalls of {length} s, {together} together");
        for (name, rule) in rules(length) {
            let alarms = false_alarms(rule(), viewers, &habit, (hours, 7));
            let four = delays(&*rule, viewers, &habit, (0.04, 300));
            let two = delays(&*rule, viewers, &habit, (0.02, 300));
            let at =
                |delays: &[u64], share: f64| delays.get((delays.len() as f64 * share) as usize).copied().unwrap_or(0);
            println!(
                "  {name:<12} {:>8.1} false/1000 h; 4 %: median {:>6} p99 {:>6}; 2 %: median {:>6} p99 {:>6}",
                alarms as f64 * 1000.0 / hours as f64,
                at(&four, 0.5),
                at(&four, 0.99),
                at(&two, 0.5),
                at(&two, 0.99)
            );
        }
    }
}

/// The delays of docs/performance.md.
fn onsets() {
    println!("viewers  stalls  onset  evaluator: within 1 s, 5 s, 10 s, 15 s, 60 s; median, p99   plain: median, p99");
    for viewers in SIZES {
        for (name, habit) in HABITS {
            for ratio in [0.04, 0.02] {
                let onsets = if viewers > 10_000 { 50 } else { 500 };
                let (ours, plain) = evaluator_delays(viewers, habit, (ratio, onsets));
                let within = [1_000, 5_000, 10_000, 15_000, 59_000]
                    .map(|bar| ours.partition_point(|delay| *delay <= bar) as f64 / ours.len() as f64 * 100.0);
                println!(
                    "{viewers:>7}  {name:>6}  {:>4} %  {:>5.1} {:>5.1} {:>5.1} {:>5.1} {:>5.1}; {:>5.2} {:>5.2}   {:>5.2} {:>5.2}",
                    ratio * 100.0,
                    within[0],
                    within[1],
                    within[2],
                    within[3],
                    within[4],
                    at(&ours, 0.5),
                    at(&ours, 0.99),
                    at(&plain, 0.5),
                    at(&plain, 0.99),
                );
            }
        }
    }
}

/// The false alarms of docs/performance.md.
fn false_alarms_by_size() {
    let hours: u64 = 1_000;
    println!("viewers  stalls  class-hours  false alarms: evaluator, plain rule");
    let (mut all, mut alarms) = (0, 0);
    for viewers in SIZES {
        for (name, habit) in HABITS {
            let hours = match viewers {
                50_000 => hours / 100,
                1_000 => hours / 4,
                _ => hours * 2 / 3,
            };
            let (ours, plain) = healthy(viewers, habit, (hours, 11));
            println!("{viewers:>7}  {name:>6}  {hours:>11}  {ours} {plain}");
            (all, alarms) = (all + hours, alarms + ours);
        }
    }
    println!("{alarms} false alarms in {all} class-hours");
    assert!(alarms * 1_000 <= all, "more than one in a thousand class-hours");
}
