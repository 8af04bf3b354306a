//! What this thread spent since an instant, and what this process holds.

use std::time::Duration;

use crate::cpu::spent;

/// What was spent since `begun`.
pub(crate) fn since(begun: Duration) -> Duration {
    spent().saturating_sub(begun)
}

/// Resident memory of this process.
pub(crate) fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux system");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches("kB").trim().parse().expect("digits")
}
