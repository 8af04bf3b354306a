//! The choice of the rule, by simulation: false alarms of healthy audiences and the delay of onsets under each rule.
//! `cargo test -p liveqos-core --release --test corpus -- --ignored --nocapture choice`.

use liveqos_core::alert::EvidenceRule;

use crate::crowd::{Crowd, Habit};
use crate::dice::Dice;
use crate::rivals::{Cusum, Ours, Plain, Rule, TwoErrors};

const BASE: f64 = 0.003;

/// Alarms (their beginnings, each followed by a minute of peace) in `hours` healthy hours.
fn false_alarms(mut rule: Box<dyn Rule>, viewers: u32, habit: &Habit, (hours, seed): (u64, u64)) -> u64 {
    let (mut crowd, mut dice) = (Crowd::default(), Dice::new(seed));
    let (mut alarms, mut peace) = (0, 0_u32);
    for _ in 0..hours * 14_400 {
        let over = rule.tick(crowd.tick(viewers, habit, &mut dice));
        if over && peace == 0 {
            alarms += 1;
        }
        peace = if over { 240 } else { peace.saturating_sub(1) };
    }
    alarms
}

/// Delays of `onsets` onsets in milliseconds, sorted; a minute where none came, and nothing where one came before.
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
        let told = (1..=240_u64).find(|_| rule.tick(crowd.tick(viewers, &fault, &mut dice)));
        delays.push(told.unwrap_or(240) * 250);
    }
    delays.sort_unstable();
    delays
}

/// Makes a rule anew.
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

#[test]
#[ignore = "the table of decision 0009, minutes: cargo test -p liveqos-core --release --test corpus -- --ignored --nocapture choice"]
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
