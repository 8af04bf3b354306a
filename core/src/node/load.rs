//! The load of this node between two readings of the kernel's totals. Decides what counts as busy and which link is the
//! fullest. Gives no ratio when a total decreased, no time passed or the denominator is unknown.

use std::time::Duration;

use crate::model::Timestamp;

/// The kernel's running totals at one instant, as far as they could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTotals {
    /// When they were read.
    pub at: Timestamp,
    /// CPU time of the whole machine.
    pub cpu: Option<CpuTicks>,
    /// Memory of the whole machine; a level, not a total.
    pub memory: Option<Memory>,
    /// The network links that count, at most [`MAX_LINKS`].
    pub links: Vec<LinkTotals>,
    /// This daemon itself.
    pub process: Option<ProcessTotals>,
}

/// The first line of `/proc/stat` (proc(5)), all CPUs together, in clock ticks since boot; 0 where the kernel has no
/// such column. `guest` and `guest_nice` are left out: `user` and `nice` include them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTicks {
    /// In user programs.
    pub user: u64,
    /// In user programs of low priority.
    pub nice: u64,
    /// In the kernel.
    pub system: u64,
    /// Idle.
    pub idle: u64,
    /// Idle while waiting for a disk.
    pub iowait: u64,
    /// Serving interrupts.
    pub irq: u64,
    /// Serving deferred interrupt work; most of the network's cost is here.
    pub softirq: u64,
    /// Wanted by this machine, given to another by the hypervisor.
    pub steal: u64,
}

/// `/proc/meminfo` of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`, bytes.
    pub total_bytes: u64,
    /// `MemAvailable` (Linux 3.14), bytes: what a new program could get without swapping.
    pub available_bytes: u64,
}

/// One network link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTotals {
    /// Interface name, as in `/proc/net/dev`.
    pub name: String,
    /// Bytes received since the link came up.
    pub received_bytes: u64,
    /// Bytes sent since the link came up.
    pub sent_bytes: u64,
    /// Capacity of the link in each direction, bit/s; `None` when neither driver nor configuration gives it.
    pub capacity_bits_per_second: Option<u64>,
}

/// This daemon's own use of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessTotals {
    /// CPU time in user and kernel mode since it started.
    pub cpu: Duration,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

/// A node's load between two readings. Every ratio is in 0..=1 except `self_cpu_ratio`, which counts cores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeReading {
    /// Share of all CPU time that was not idle. Time waiting for a disk is idle (a core was free to work); stolen time
    /// is busy (the machine wanted it and could not have it).
    pub cpu_ratio: Option<f64>,
    /// Share of memory that a new program could not get: 1 - `MemAvailable` / `MemTotal`, at the later reading.
    pub memory_ratio: Option<f64>,
    /// The fuller direction of the fullest link, over its capacity; at most 1. `None` when no link's capacity is known.
    pub nic_ratio: Option<f64>,
    /// Received over all links, bit/s.
    pub nic_received_bits_per_second: Option<f64>,
    /// Sent over all links, bit/s.
    pub nic_sent_bits_per_second: Option<f64>,
    /// This daemon's CPU time over elapsed time: 1 is one whole core.
    pub self_cpu_ratio: Option<f64>,
    /// This daemon's resident memory at the later reading, bytes.
    pub self_resident_bytes: Option<u64>,
}

impl NodeReading {
    /// The load between `earlier` and `later`. A link is compared with the link of the same name. One that is new or
    /// whose counters decreased does not count for the fullest link, and makes both sums absent, since they would be
    /// too low.
    #[must_use]
    pub fn between(earlier: &NodeTotals, later: &NodeTotals) -> Self {
        let elapsed = later.at.since(earlier.at);
        let loads: Vec<Option<LinkLoad>> =
            later.links.iter().take(MAX_LINKS).map(|link| LinkLoad::of(link, &earlier.links, elapsed)).collect();
        let sum = |direction: fn(&LinkLoad) -> f64| -> Option<f64> {
            if loads.is_empty() { None } else { loads.iter().map(|load| load.as_ref().map(direction)).sum() }
        };
        Self {
            cpu_ratio: earlier.cpu.zip(later.cpu).and_then(|(earlier, later)| cpu_ratio(earlier, later)),
            memory_ratio: later.memory.and_then(memory_ratio),
            nic_ratio: loads.iter().flatten().filter_map(|load| load.ratio).reduce(f64::max),
            nic_received_bits_per_second: sum(|load| load.received),
            nic_sent_bits_per_second: sum(|load| load.sent),
            self_cpu_ratio: earlier
                .process
                .zip(later.process)
                .and_then(|(earlier, later)| per_second(later.cpu.checked_sub(earlier.cpu)?.as_secs_f64(), elapsed)),
            self_resident_bytes: later.process.map(|process| process.resident_bytes),
        }
    }
}

/// Most links of one reading; the reader leaves out and counts the rest.
pub const MAX_LINKS: usize = 64;

/// One link's load in bit/s.
struct LinkLoad {
    received: f64,
    sent: f64,
    ratio: Option<f64>,
}

impl LinkLoad {
    fn of(link: &LinkTotals, earlier: &[LinkTotals], elapsed: Duration) -> Option<Self> {
        let before = earlier.iter().find(|before| before.name == link.name)?;
        let rate = |now: u64, before: u64| per_second(now.checked_sub(before)? as f64 * 8.0, elapsed);
        let received = rate(link.received_bytes, before.received_bytes)?;
        let sent = rate(link.sent_bytes, before.sent_bytes)?;
        let capacity = link.capacity_bits_per_second.filter(|capacity| *capacity > 0);
        let ratio = capacity.map(|capacity| (received.max(sent) / capacity as f64).min(1.0));
        Some(Self { received, sent, ratio })
    }
}

fn cpu_ratio(earlier: CpuTicks, later: CpuTicks) -> Option<f64> {
    let idle = later.idle_ticks().checked_sub(earlier.idle_ticks())?;
    let busy = later.busy_ticks().checked_sub(earlier.busy_ticks())?;
    let total = idle.checked_add(busy).filter(|total| *total > 0)?;
    Some(busy as f64 / total as f64)
}

impl CpuTicks {
    /// Idle and iowait together: the kernel moves ticks between the two, so each alone may decrease (proc(5)).
    const fn idle_ticks(self) -> u64 {
        self.idle.saturating_add(self.iowait)
    }

    const fn busy_ticks(self) -> u64 {
        let programs = self.user.saturating_add(self.nice).saturating_add(self.system);
        programs.saturating_add(self.irq).saturating_add(self.softirq).saturating_add(self.steal)
    }
}

fn memory_ratio(memory: Memory) -> Option<f64> {
    let used = memory.total_bytes.checked_sub(memory.available_bytes)?;
    (memory.total_bytes > 0).then(|| used as f64 / memory.total_bytes as f64)
}

fn per_second(amount: f64, elapsed: Duration) -> Option<f64> {
    (!elapsed.is_zero()).then(|| amount / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals(seconds: u64, cpu: CpuTicks, links: &[(&str, u64, u64, Option<u64>)]) -> NodeTotals {
        let link = |&(name, received_bytes, sent_bytes, capacity_bits_per_second): &(&str, u64, u64, Option<u64>)| {
            LinkTotals { name: name.to_owned(), received_bytes, sent_bytes, capacity_bits_per_second }
        };
        NodeTotals {
            at: Timestamp::from_secs(seconds),
            cpu: Some(cpu),
            memory: Some(Memory { total_bytes: 1000, available_bytes: 250 }),
            links: links.iter().map(link).collect(),
            process: Some(ProcessTotals { cpu: Duration::from_millis(seconds * 20), resident_bytes: 7 }),
        }
    }

    #[test]
    fn disk_wait_is_idle_and_stolen_time_is_busy() {
        let earlier = CpuTicks { user: 100, idle: 100, ..CpuTicks::default() };
        let waiting = CpuTicks { user: 110, idle: 150, iowait: 40, ..CpuTicks::default() };
        assert_eq!(cpu_ratio(earlier, waiting), Some(0.1));
        let starved = CpuTicks { user: 110, idle: 150, steal: 40, ..CpuTicks::default() };
        assert_eq!(cpu_ratio(earlier, starved), Some(0.5));
        let moved = CpuTicks { user: 110, idle: 90, iowait: 20, ..CpuTicks::default() };
        assert_eq!(cpu_ratio(earlier, moved), Some(0.5), "ticks moved from idle to iowait are no decrease");
    }

    #[test]
    fn the_fullest_direction_of_the_fullest_link_counts() {
        let gigabit = Some(1_000_000_000);
        let earlier = totals(0, CpuTicks::default(), &[("a", 0, 0, gigabit), ("b", 0, 0, gigabit), ("c", 0, 0, None)]);
        let later = totals(
            10,
            CpuTicks { user: 1, ..CpuTicks::default() },
            &[("a", 125_000_000, 250_000_000, gigabit), ("b", 1_000_000_000, 0, gigabit), ("c", u64::MAX / 8, 0, None)],
        );
        let reading = NodeReading::between(&earlier, &later);
        assert_eq!(reading.nic_ratio, Some(0.8));
        assert_eq!(reading.nic_sent_bits_per_second, Some(200_000_000.0));
        assert_eq!(reading.memory_ratio, Some(0.75));
        assert_eq!(reading.self_cpu_ratio, Some(0.02));
        assert_eq!((reading.cpu_ratio, reading.self_resident_bytes), (Some(1.0), Some(7)));
    }

    #[test]
    fn decreasing_new_or_simultaneous_totals_give_no_ratio() {
        let gigabit = Some(1_000_000_000);
        let earlier =
            totals(5, CpuTicks { user: 9, ..CpuTicks::default() }, &[("a", 9, 9, gigabit), ("b", 0, 0, gigabit)]);
        let back = totals(6, CpuTicks { user: 8, idle: 5, ..CpuTicks::default() }, &[("a", 8, 9, gigabit)]);
        let reading = NodeReading::between(&earlier, &back);
        assert_eq!((reading.cpu_ratio, reading.nic_ratio, reading.nic_received_bits_per_second), (None, None, None));
        let new = totals(6, CpuTicks::default(), &[("b", 12_500_000, 0, gigabit), ("c", 5, 5, gigabit)]);
        let reading = NodeReading::between(&earlier, &new);
        assert_eq!(reading.nic_ratio, Some(0.1), "the link that can be compared still counts");
        assert_eq!(reading.nic_received_bits_per_second, None, "a sum without the new link would be too low");
        assert_eq!(NodeReading::between(&earlier, &earlier).self_cpu_ratio, None);
        let blind = NodeReading::between(&NodeTotals::default(), &NodeTotals::default());
        assert_eq!(blind, NodeReading::default());
    }

    proptest! {
        #[test]
        fn ratios_stay_in_range(a in any::<[u64; 8]>(), b in any::<[u64; 8]>(), capacity in any::<Option<u64>>(), seconds in 0_u64..9) {
            let ticks = |t: [u64; 8]| CpuTicks {
                user: t[0], nice: t[1], system: t[2], idle: t[3], iowait: t[4], irq: t[5], softirq: t[6], steal: t[7],
            };
            let mut earlier = totals(1, ticks(a), &[("a", a[0], a[1], capacity)]);
            let mut later = totals(1 + seconds, ticks(b), &[("a", b[0], b[1], capacity)]);
            earlier.memory = Some(Memory { total_bytes: a[2], available_bytes: a[3] });
            later.memory = Some(Memory { total_bytes: b[2], available_bytes: b[3] });
            let reading = NodeReading::between(&earlier, &later);
            for ratio in [reading.cpu_ratio, reading.memory_ratio, reading.nic_ratio].into_iter().flatten() {
                prop_assert!((0.0..=1.0).contains(&ratio), "{ratio}");
            }
            prop_assert_eq!(reading.nic_sent_bits_per_second.is_some(), seconds > 0 && b[0] >= a[0] && b[1] >= a[1]);
        }
    }
}
