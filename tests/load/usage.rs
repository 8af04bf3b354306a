//! What a process used, from /proc: processor time of it and of each of its threads, how often they were given a
//! processor, memory.

use std::collections::BTreeMap;
use std::time::Duration;

/// Processor time of a process, user and system, and by thread name.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    pub(crate) all: Duration,
    pub(crate) threads: BTreeMap<String, Duration>,
    /// How often one of its threads was given a processor.
    pub(crate) turns: u64,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Self {
        let (mut threads, mut turns) = (BTreeMap::new(), 0);
        for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let folder = entry.unwrap().path();
            // A thread may end in between.
            let (Ok(name), Ok(stat)) =
                (std::fs::read_to_string(folder.join("comm")), std::fs::read_to_string(folder.join("schedstat")))
            else {
                continue;
            };
            *threads.entry(name.trim().to_owned()).or_default() += nanos(&stat);
            turns += stat.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap();
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name in brackets: state is field 3, utime 14, stime 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
        Self { all: Duration::from_millis(ticks * 10), threads, turns }
    }

    pub(crate) fn since(&self, was: &Self) -> Self {
        let thread = |(name, now): (&String, &Duration)| {
            (name.clone(), now.saturating_sub(was.threads.get(name).copied().unwrap_or_default()))
        };
        let threads = self.threads.iter().map(thread).collect();
        Self { all: self.all.saturating_sub(was.all), threads, turns: self.turns.saturating_sub(was.turns) }
    }
}

/// Resident memory of a process and its peak, bytes.
pub(crate) fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Processor time of the calling thread.
pub(crate) fn own_thread() -> Duration {
    nanos(&std::fs::read_to_string("/proc/thread-self/schedstat").unwrap())
}

fn nanos(schedstat: &str) -> Duration {
    Duration::from_nanos(schedstat.split_whitespace().next().unwrap().parse().unwrap())
}
