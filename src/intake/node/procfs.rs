//! The totals of this node's load from `/proc` and `/sys`. Decides which network links count and what their capacity
//! is. It never fails as a whole: what cannot be read is absent and reported.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use liveqos_core::model::Timestamp;
use liveqos_core::node::{CpuTicks, LinkTotals, MAX_LINKS, Memory, NodeTotals, ProcessTotals};
use procfs::net::InterfaceDeviceStatus;
use procfs::process::Stat;
use procfs::{
    FromRead, FromReadSI, KernelStats, Meminfo, ProcError, WithSystemInfo, current_system_info, ticks_per_second,
};

/// Where the node's load is read from.
#[derive(Clone, Debug)]
pub(super) struct NodeSource {
    /// The root of the process file system: `/proc`, another folder in tests.
    pub proc_root: PathBuf,
    /// The root of the device file system: `/sys`, another folder in tests.
    pub sys_root: PathBuf,
    /// Capacity of each link in each direction in bit/s, instead of what its driver reports: for virtual machines,
    /// whose drivers report nothing, and for links that the provider limits.
    pub link_bits_per_second: Option<u64>,
}

/// Why a part of the load is absent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    /// A file of `/proc` cannot be read or has an unknown form.
    #[error("reading the node's load from {file}: {source}")]
    Read {
        /// The file, relative to the root of the process file system.
        file: &'static str,
        /// What went wrong.
        source: ProcError,
    },
    /// The kernel does not report `MemAvailable` (before Linux 3.14).
    #[error("reading the node's load from meminfo: no MemAvailable")]
    MemoryAvailable,
    /// More links than [`MAX_LINKS`]; the last by name are omitted.
    #[error("reading the node's load: {0} network links omitted")]
    LinksCut(usize),
}

impl Default for NodeSource {
    /// The file systems of this machine.
    fn default() -> Self {
        Self { proc_root: PathBuf::from("/proc"), sys_root: PathBuf::from("/sys"), link_bits_per_second: None }
    }
}

impl NodeSource {
    /// Reads all totals at `at`. What fails is absent there and pushed to `failures`. Takes a few small reads, well
    /// under 1 ms.
    pub(super) fn read(&self, at: Timestamp, failures: &mut Vec<NodeError>) -> NodeTotals {
        let mut report = |failure| failures.push(failure);
        NodeTotals {
            at,
            cpu: self.cpu().map_err(&mut report).ok(),
            memory: self.memory().map_err(&mut report).ok(),
            links: self.links(&mut report),
            process: self.process().map_err(&mut report).ok(),
        }
    }

    fn cpu(&self) -> Result<CpuTicks, NodeError> {
        let stats = KernelStats::from_file(self.proc_root.join("stat"), current_system_info());
        let cpu = stats.map_err(|source| NodeError::Read { file: "stat", source })?.total;
        Ok(CpuTicks {
            user: cpu.user,
            nice: cpu.nice,
            system: cpu.system,
            idle: cpu.idle,
            iowait: cpu.iowait.unwrap_or_default(),
            irq: cpu.irq.unwrap_or_default(),
            softirq: cpu.softirq.unwrap_or_default(),
            steal: cpu.steal.unwrap_or_default(),
        })
    }

    fn memory(&self) -> Result<Memory, NodeError> {
        let memory = Meminfo::from_file(self.proc_root.join("meminfo"))
            .map_err(|source| NodeError::Read { file: "meminfo", source })?;
        let available_bytes = memory.mem_available.ok_or(NodeError::MemoryAvailable)?;
        Ok(Memory { total_bytes: memory.mem_total, available_bytes })
    }

    fn process(&self) -> Result<ProcessTotals, NodeError> {
        let stat = Stat::from_file(self.proc_root.join("self/stat"))
            .map_err(|source| NodeError::Read { file: "self/stat", source })?;
        let ticks = stat.utime.saturating_add(stat.stime);
        let cpu = Duration::try_from_secs_f64(ticks as f64 / ticks_per_second() as f64).unwrap_or_default();
        Ok(ProcessTotals { cpu, resident_bytes: stat.rss_bytes().with_system_info(current_system_info()) })
    }

    /// The links that are up and have hardware (`/sys/class/net/<name>/device`). Bridges, tunnels and bonds are
    /// omitted, because their bytes also pass through a physical link. With a configured capacity and without any
    /// hardware (in a container) every link that is up counts, except the loopback.
    fn links(&self, report: &mut impl FnMut(NodeError)) -> Vec<LinkTotals> {
        let devices = match InterfaceDeviceStatus::from_file(self.proc_root.join("net/dev")) {
            Ok(devices) => devices.0,
            Err(source) => {
                report(NodeError::Read { file: "net/dev", source });
                return Vec::new();
            }
        };
        let classes = self.sys_root.join("class/net");
        let up = |name: &str| matches!(text(&classes, name, "operstate").as_deref(), Some("up" | "unknown"));
        let physical = |name: &str| classes.join(name).join("device").exists();
        let any_physical = devices.keys().any(|name| physical(name));
        let virtual_counts = !any_physical && self.link_bits_per_second.is_some();
        let mut links: Vec<LinkTotals> = devices
            .into_values()
            .filter(|device| device.name != LOOPBACK && up(&device.name) && (virtual_counts || physical(&device.name)))
            .map(|device| LinkTotals {
                capacity_bits_per_second: self.link_bits_per_second.or_else(|| capacity(&classes, &device.name)),
                received_bytes: device.recv_bytes,
                sent_bytes: device.sent_bytes,
                name: device.name,
            })
            .collect();
        links.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(over) = links.len().checked_sub(MAX_LINKS).filter(|over| *over > 0) {
            report(NodeError::LinksCut(over));
            links.truncate(MAX_LINKS);
        }
        links
    }
}

/// The capacity that a link's driver reports, in bit/s; virtual drivers report -1 or nothing.
fn capacity(classes: &Path, name: &str) -> Option<u64> {
    let megabits: u64 = text(classes, name, "speed")?.parse().ok()?;
    megabits.checked_mul(1_000_000).filter(|bits| *bits > 0)
}

fn text(classes: &Path, name: &str, file: &str) -> Option<String> {
    let text = fs::read_to_string(classes.join(name).join(file)).ok()?;
    Some(text.trim().to_owned())
}

/// The loopback's name on every Linux.
const LOOPBACK: &str = "lo";

#[cfg(test)]
mod tests {
    use liveqos_core::node::NodeReading;

    use super::*;

    /// A machine with two physical links, one of them down, and a bridge, in its state after `seconds`.
    fn machine(root: &Path, seconds: u64) -> NodeSource {
        let ticks = seconds * 200;
        let files = [
            (
                "proc/stat",
                format!(
                    "cpu  {} 0 0 {} {} 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\nctxt 2\nbtime 3\nprocesses 4\n",
                    ticks / 4,
                    ticks / 2,
                    ticks / 4
                ),
            ),
            ("proc/meminfo", "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 6000 kB\nBuffers: 1 kB\nCached: 1 kB\nSwapCached: 0 kB\nActive: 1 kB\nInactive: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nDirty: 0 kB\nWriteback: 0 kB\nMapped: 1 kB\nSlab: 1 kB\nCommitted_AS: 1 kB\nVmallocTotal: 1 kB\nVmallocUsed: 1 kB\nVmallocChunk: 0 kB\n".to_owned()),
            ("proc/self/stat", format!("7 (live qos) R 1 7 7 0 -1 0 0 0 0 0 {} {} 0 0 20 0 9 0 5 1000000 256 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0\n", seconds * 3, seconds * 2)),
            (
                "proc/net/dev",
                format!(
                    "Inter-|\n face |\n    lo: 9{0}0000000 0 0 0 0 0 0 0 9{0}0000000 0 0 0 0 0 0 0\n  eth0: {1} 0 0 0 0 0 0 0 {2} 0 0 0 0 0 0 0\n  eth1: {1} 0 0 0 0 0 0 0 {2} 0 0 0 0 0 0 0\n   br0: {1} 0 0 0 0 0 0 0 {2} 0 0 0 0 0 0 0\n",
                    seconds,
                    seconds * 1_000_000,
                    seconds * 25_000_000
                ),
            ),
            ("sys/class/net/lo/operstate", "unknown\n".to_owned()),
            ("sys/class/net/eth0/operstate", "up\n".to_owned()),
            ("sys/class/net/eth0/speed", "1000\n".to_owned()),
            ("sys/class/net/eth0/device/vendor", String::new()),
            ("sys/class/net/eth1/operstate", "down\n".to_owned()),
            ("sys/class/net/eth1/device/vendor", String::new()),
            ("sys/class/net/br0/operstate", "up\n".to_owned()),
            ("sys/class/net/br0/speed", "10\n".to_owned()),
        ];
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        NodeSource { proc_root: root.join("proc"), sys_root: root.join("sys"), link_bits_per_second: None }
    }

    fn between(root: &Path, source: &NodeSource) -> NodeReading {
        let mut failures = Vec::new();
        machine(root, 10);
        let earlier = source.read(Timestamp::from_secs(10), &mut failures);
        machine(root, 15);
        let later = source.read(Timestamp::from_secs(15), &mut failures);
        assert!(failures.is_empty(), "{failures:?}");
        NodeReading::between(&earlier, &later)
    }

    #[test]
    fn two_readings_of_a_machine_give_its_load() {
        let root = tempfile::tempdir().unwrap();
        let source = machine(root.path(), 0);
        let reading = between(root.path(), &source);
        assert_eq!((reading.cpu_ratio, reading.memory_ratio, reading.nic_ratio), (Some(0.25), Some(0.25), Some(0.2)));
        assert_eq!(reading.nic_received_bits_per_second, Some(8_000_000.0));
        assert_eq!(reading.nic_sent_bits_per_second, Some(200_000_000.0));
        let own = 5.0 / ticks_per_second() as f64;
        assert!((reading.self_cpu_ratio.unwrap() - own).abs() < 1e-9);
        assert_eq!(reading.self_resident_bytes, Some(256 * procfs::page_size()));
    }

    #[test]
    fn a_link_without_speed_has_no_ratio_unless_configured() {
        let root = tempfile::tempdir().unwrap();
        let mut source = machine(root.path(), 0);
        source.link_bits_per_second = Some(400_000_000);
        assert_eq!(between(root.path(), &source).nic_ratio, Some(0.5));
        source.link_bits_per_second = None;
        for speed in ["-1\n", "0\n", "", "18446744073709551615\n"] {
            let mut readings = [10, 15].map(|seconds| {
                machine(root.path(), seconds);
                fs::write(root.path().join("sys/class/net/eth0/speed"), speed).unwrap();
                source.read(Timestamp::from_secs(seconds), &mut Vec::new())
            });
            let reading = NodeReading::between(&readings[0], &readings[1]);
            assert_eq!((reading.nic_ratio, reading.nic_sent_bits_per_second), (None, Some(200_000_000.0)), "{speed:?}");
            readings[1].links.clear();
            assert_eq!(NodeReading::between(&readings[0], &readings[1]).nic_sent_bits_per_second, None);
        }
    }

    #[test]
    fn a_container_counts_its_links_when_their_capacity_is_configured() {
        let root = tempfile::tempdir().unwrap();
        let mut source = machine(root.path(), 0);
        for link in ["eth0", "eth1"] {
            fs::remove_dir_all(root.path().join("sys/class/net").join(link).join("device")).unwrap();
        }
        assert!(source.read(Timestamp::from_secs(1), &mut Vec::new()).links.is_empty());
        source.link_bits_per_second = Some(1_000);
        let links = source.read(Timestamp::from_secs(1), &mut Vec::new()).links;
        assert_eq!(links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["br0", "eth0"]);
    }

    #[test]
    fn unreadable_files_are_absent_and_reported() {
        let root = tempfile::tempdir().unwrap();
        let source = machine(root.path(), 1);
        fs::remove_file(root.path().join("proc/stat")).unwrap();
        fs::write(root.path().join("proc/net/dev"), "a\nb\neth0: x\n").unwrap();
        let mut failures = Vec::new();
        let totals = source.read(Timestamp::from_secs(1), &mut failures);
        assert_eq!((totals.cpu, totals.links.len(), totals.memory.is_some()), (None, 0, true));
        let named: Vec<String> = failures.iter().map(ToString::to_string).collect();
        assert!(named[0].contains("from stat") && named[1].contains("from net/dev"), "{named:?}");
    }

    #[test]
    fn the_load_of_this_machine_is_read() {
        let mut failures = Vec::new();
        let totals = NodeSource::default().read(Timestamp::from_secs(1), &mut failures);
        assert!(failures.is_empty(), "{failures:?}");
        assert!(totals.cpu.is_some() && totals.memory.is_some());
        assert!(totals.process.is_some_and(|process| process.resident_bytes > 1_000_000));
    }
}
