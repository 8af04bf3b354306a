//! The daemon's metrics about itself and its node, registered under the names and helps of core's catalogue.

use std::time::Duration;

use liveqos_core::connection::Listener;
use liveqos_core::metrics::{Kind, Metric, ShedReason, catalog};
use prometheus::{CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry};

/// Instruments that are set when something happens; all other metrics are read when the page is requested.
#[derive(Clone)]
pub struct SelfMetrics {
    /// How late each tick of the engine was, in seconds.
    pub tick_skew: Histogram,
    /// Work refused or dropped at a bound, by `reason`.
    pub shed: CounterVec,
    /// Processor use of the machine, 0 to 1.
    pub node_cpu: GaugeVec,
    /// Memory use of the machine, 0 to 1.
    pub node_memory: GaugeVec,
    /// Network use of the machine, 0 to 1.
    pub node_nic: GaugeVec,
    /// TCP connections of the listeners of the access logs' servers, by `port` and `kind`.
    listener_connections: GaugeVec,
    listener_backlog: GaugeVec,
    listener_rtt: GaugeVec,
    listener_segments: CounterVec,
    /// Processor use of the daemon, in cores.
    pub overhead_cpu: GaugeVec,
    /// Resident memory of the daemon, in bytes.
    pub overhead_memory: GaugeVec,
}

impl SelfMetrics {
    /// Creates the instruments and registers them with `registry`.
    ///
    /// # Errors
    /// When `registry` already has one of the names.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let skew = HistogramVec::new(histogram_opts(row("liveqos_tick_skew_seconds")), &[])?;
        let shed = row("liveqos_shed_total");
        let shed = CounterVec::new(Opts::new(shed.name, shed.help), shed.labels)?;
        let segments = row("liveqos_listener_segments_total");
        let listener_segments = CounterVec::new(Opts::new(segments.name, segments.help), segments.labels)?;
        let metrics = Self {
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
        registry.register(Box::new(metrics.shed.clone()))?;
        let node = [&metrics.node_cpu, &metrics.node_memory, &metrics.node_nic];
        for gauge in node.into_iter().chain([&metrics.overhead_cpu, &metrics.overhead_memory]) {
            registry.register(Box::new(gauge.clone()))?;
        }
        for gauge in [&metrics.listener_connections, &metrics.listener_backlog, &metrics.listener_rtt] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(metrics.listener_segments.clone()))?;
        Ok(metrics)
    }

    /// Sets what the newest `sock_diag` dump showed about the listener on `port`.
    pub fn set_listener(&self, port: u16, listener: &Listener, rtt: Option<Duration>) {
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
            // Fails where the gauge was never set.
            None => self.listener_rtt.remove_label_values(&[&port]).unwrap_or_default(),
        }
    }

    /// Removes the gauges of a listener that is no longer observed; its counters stay.
    pub fn remove_listener(&self, port: u16) {
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
    pub fn shed(&self, reason: ShedReason, count: u64) {
        if count > 0 {
            self.shed.with_label_values(&[reason.as_str()]).inc_by(count as f64);
        }
    }

    /// Sets `gauge`, or removes it where the value is unknown.
    pub fn set(gauge: &GaugeVec, value: Option<f64>) {
        match value {
            Some(value) => gauge.with_label_values::<&str>(&[]).set(value),
            None => gauge.reset(),
        }
    }
}

/// The metrics that [`SelfMetrics`] registers; the node collector leaves them out.
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

/// The catalogue's row of this name; every name used here is in it.
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
