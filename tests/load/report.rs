//! Figures as a person reads them.

use std::time::Duration;

use super::usage::Cpu;

/// Median, 90th and 99th of a hundred, greatest, of so many; in seconds.
pub(crate) fn spread(mut millis: Vec<u64>) -> String {
    if millis.is_empty() {
        return "none".to_owned();
    }
    millis.sort_unstable();
    let at = |part: f64| {
        let rank = (millis.len() as f64 * part).ceil() as usize;
        millis[rank.clamp(1, millis.len()) - 1] as f64 / 1_000.0
    };
    format!(
        "median {:.2} s, p90 {:.2}, p99 {:.2}, max {:.2} (of {})",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        millis.len()
    )
}

/// Share of a core.
pub(crate) fn share(cpu: Duration, took: Duration) -> f64 {
    cpu.as_secs_f64() / took.as_secs_f64() * 100.0
}

/// Processor time by thread, the greatest first.
pub(crate) fn threads(cpu: &Cpu, took: Duration) -> String {
    let mut threads: Vec<(&String, &Duration)> = cpu.threads.iter().filter(|(_, used)| !used.is_zero()).collect();
    threads.sort_by_key(|(_, used)| std::cmp::Reverse(**used));
    let text = |(name, used): &(&String, &Duration)| format!("{name} {:.2} %", share(**used, took));
    threads.iter().map(text).collect::<Vec<_>>().join(", ")
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
