//! What the daemon counts of itself. Decides nothing; every bound that bites and every outcome has its counter here,
//! registered under the catalogue's name and help.

use std::time::Duration;

use liveqos_core::connection::Listener;
use liveqos_core::metrics::{Kind, Metric, catalog};
use prometheus::{CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry};

/// The daemon's own instruments.
#[derive(Clone)]
pub struct SelfMetrics {
    /// How late each tick was.
    pub tick_skew: Histogram,
    /// Work refused or dropped at a bound.
    pub shed: CounterVec,
    /// Processor time of the machine.
    pub node_cpu: GaugeVec,
    /// Memory of the machine.
    pub node_memory: GaugeVec,
    /// Network of the machine.
    pub node_nic: GaugeVec,
    /// Connections, backlog and round trip of the access logs' listeners.
    listener_connections: GaugeVec,
    listener_backlog: GaugeVec,
    listener_rtt: GaugeVec,
    listener_segments: CounterVec,
    /// Processor time of the daemon.
    pub overhead_cpu: GaugeVec,
    /// Memory of the daemon.
    pub overhead_memory: GaugeVec,
}

impl SelfMetrics {
    /// The instruments, registered with `registry`.
    ///
    /// # Errors
    /// When the registry has one of the names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let skew = HistogramVec::new(histogram_opts(row("liveqos_tick_skew_seconds")), &[])?;
        let shed = row("liveqos_shed_total");
        let shed = CounterVec::new(Opts::new(shed.name, shed.help), shed.labels)?;
        let segments = row("liveqos_listener_segments_total");
        let listener_segments = CounterVec::new(Opts::new(segments.name, segments.help), segments.labels)?;
        let meters = Self {
            tick_skew: skew.with_label_values::<&str>(&[]),
            shed,
            node_cpu: gauge("liveqos_node_cpu_ratio")?,
            node_memory: gauge("liveqos_node_memory_ratio")?,
            node_nic: gauge("liveqos_node_nic_ratio")?,
            listener_connections: gauge("liveqos_listener_connections")?,
            listener_backlog: gauge("liveqos_listener_backlog_bytes")?,
            listener_rtt: gauge("liveqos_listener_rtt_seconds")?,
            listener_segments,
            overhead_cpu: gauge("liveqos_overhead_cpu_ratio")?,
            overhead_memory: gauge("liveqos_overhead_memory_bytes")?,
        };
        registry.register(Box::new(skew))?;
        registry.register(Box::new(meters.shed.clone()))?;
        let node = [&meters.node_cpu, &meters.node_memory, &meters.node_nic];
        for gauge in node.into_iter().chain([&meters.overhead_cpu, &meters.overhead_memory]) {
            registry.register(Box::new(gauge.clone()))?;
        }
        for gauge in [&meters.listener_connections, &meters.listener_backlog, &meters.listener_rtt] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(meters.listener_segments.clone()))?;
        Ok(meters)
    }

    /// Sets what the newest dump showed of a listener.
    pub fn tell_listener(&self, port: u16, listener: &Listener, rtt: Option<Duration>) {
        let port = port.to_string();
        let connections = |kind| self.listener_connections.with_label_values(&[port.as_str(), kind]);
        connections("known").set(listener.known as f64);
        connections("unknown").set(listener.unknown as f64);
        self.listener_backlog.with_label_values(&[&port]).set(listener.backlog_bytes as f64);
        let segments = |kind| self.listener_segments.with_label_values(&[port.as_str(), kind]);
        segments("sent").inc_by(listener.segments_sent as f64);
        segments("lost").inc_by(listener.segments_lost as f64);
        match rtt {
            Some(rtt) => self.listener_rtt.with_label_values(&[&port]).set(rtt.as_secs_f64()),
            // It may never have been there.
            None => self.listener_rtt.remove_label_values(&[&port]).unwrap_or_default(),
        }
    }

    /// Takes away the gauges of a listener that is not looked at any more; its counters stay.
    pub fn forget_listener(&self, port: u16) {
        let port = port.to_string();
        let gone = [
            self.listener_connections.remove_label_values(&[port.as_str(), "known"]),
            self.listener_connections.remove_label_values(&[port.as_str(), "unknown"]),
            self.listener_backlog.remove_label_values(&[&port]),
            self.listener_rtt.remove_label_values(&[&port]),
        ];
        gone.into_iter().for_each(Result::unwrap_or_default);
    }

    /// Counts `count` pieces of work refused or dropped at the bound named `reason`.
    pub fn shed(&self, reason: &str, count: u64) {
        if count > 0 {
            self.shed.with_label_values(&[reason]).inc_by(count as f64);
        }
    }

    /// Sets a gauge of the node, or takes it away where it cannot be told.
    pub fn tell(gauge: &GaugeVec, value: Option<f64>) {
        match value {
            Some(value) => gauge.with_label_values::<&str>(&[]).set(value),
            None => gauge.reset(),
        }
    }
}

/// The metrics that are instruments of their own here; all others are read when the page is asked for.
pub(crate) const OWN: [&str; 11] = [
    "liveqos_listener_connections",
    "liveqos_listener_backlog_bytes",
    "liveqos_listener_rtt_seconds",
    "liveqos_listener_segments_total",
    "liveqos_tick_skew_seconds",
    "liveqos_shed_total",
    "liveqos_node_cpu_ratio",
    "liveqos_node_memory_ratio",
    "liveqos_node_nic_ratio",
    "liveqos_overhead_cpu_ratio",
    "liveqos_overhead_memory_bytes",
];

/// The catalogue's row of this name. Only names of rows are asked for, as the tests of every metric here prove.
fn row(name: &str) -> &'static Metric {
    catalog::metric(name).unwrap_or(&catalog::METRICS[0])
}

fn gauge(name: &str) -> prometheus::Result<GaugeVec> {
    let row = row(name);
    GaugeVec::new(Opts::new(row.name, row.help), row.labels)
}

fn histogram_opts(row: &Metric) -> HistogramOpts {
    let opts = HistogramOpts::new(row.name, row.help);
    match row.kind {
        Kind::Histogram(bounds) => opts.buckets(bounds.to_vec()),
        Kind::Counter | Kind::Gauge | Kind::Summary => opts,
    }
}
