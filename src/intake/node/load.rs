//! Reads the node's load every five seconds. What cannot be read is absent and logged once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::model::NodeLoad;
use liveqos_core::node::{NodeReading, NodeTotals};

use super::procfs::NodeSource;
use crate::platform::{SelfMetrics, clock};

/// The reader of the node's load.
pub(crate) struct LoadReader {
    source: NodeSource,
    out: Arc<ArcSwap<NodeLoad>>,
    meters: SelfMetrics,
    logged: BTreeSet<String>,
}

impl LoadReader {
    /// Reads into `out`. `link_bits_per_second` replaces the link speed that drivers report; 0 keeps theirs.
    #[must_use]
    pub(crate) fn new(link_bits_per_second: u64, out: Arc<ArcSwap<NodeLoad>>, meters: SelfMetrics) -> Self {
        let link_bits_per_second = (link_bits_per_second > 0).then_some(link_bits_per_second);
        let source = NodeSource { link_bits_per_second, ..NodeSource::default() };
        Self { source, out, meters, logged: BTreeSet::new() }
    }

    /// Reads until the task is dropped.
    pub(crate) async fn run(mut self) {
        let mut earlier = self.read();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let later = self.read();
            let reading = NodeReading::between(&earlier, &later);
            self.publish(&reading);
            earlier = later;
        }
    }

    fn read(&mut self) -> NodeTotals {
        let mut failures = Vec::new();
        let totals = self.source.read(clock::now(), &mut failures);
        for failure in failures.iter().map(ToString::to_string) {
            if self.logged.insert(failure.clone()) {
                tracing::warn!("{failure}");
            }
        }
        totals
    }

    fn publish(&self, reading: &NodeReading) {
        let load =
            NodeLoad { cpu_ratio: reading.cpu_ratio, memory_ratio: reading.memory_ratio, nic_ratio: reading.nic_ratio };
        self.out.store(Arc::new(load));
        SelfMetrics::set(&self.meters.node_cpu, reading.cpu_ratio);
        SelfMetrics::set(&self.meters.node_memory, reading.memory_ratio);
        SelfMetrics::set(&self.meters.node_nic, reading.nic_ratio);
        SelfMetrics::set(&self.meters.overhead_cpu, reading.self_cpu_ratio);
        SelfMetrics::set(&self.meters.overhead_memory, reading.self_resident_bytes.map(|bytes| bytes as f64));
    }
}

const INTERVAL: Duration = Duration::from_secs(5);
