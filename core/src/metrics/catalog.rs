//! Every exported metric, one row each: name, kind, unit, help, labels, and how it is read from a sample. Exporters,
//! docs/metrics.md, rules and dashboards are made from this table or checked against it; a metric that is not here is
//! not exported.

use super::metric::{FLEET_LABELS, Kind, Metric, Read, SESSION_LABELS, fleet, leg, shell};
use super::node_totals::{FIRST_FRAME_BOUNDS, LATENCY_BOUNDS, MESSAGE_BOUNDS};
use crate::model::LegSample;

/// The catalogue.
pub const METRICS: &[Metric] = &[
    fleet("liveqos_watch_seconds_total", "liveqos.watch", "s", "Viewer-seconds in playing or stalled state.", |t| {
        t.watch_seconds
    }),
    fleet("liveqos_stutter_seconds_total", "liveqos.stutter", "s", "Viewer-seconds stalled or frozen.", |t| {
        t.stutter_seconds
    }),
    Metric {
        name: "liveqos_latency_seconds",
        otel_name: "liveqos.latency",
        kind: Kind::Histogram(LATENCY_BOUNDS),
        unit: "s",
        help: "Delivery latency of viewers: age of the newest media received against the newest the node holds, plus half the round trip.",
        labels: FLEET_LABELS,
        read: Read::FleetBuckets(|t| t.latency.as_ref()),
    },
    Metric {
        name: "liveqos_first_frame_seconds",
        otel_name: "liveqos.first_frame",
        kind: Kind::Histogram(FIRST_FRAME_BOUNDS),
        unit: "s",
        help: "Time from requesting the class to its first frame.",
        labels: FLEET_LABELS,
        read: Read::FleetBuckets(|t| t.first_frame.as_ref()),
    },
    Metric {
        name: "liveqos_message_latency_seconds",
        otel_name: "liveqos.message.latency",
        kind: Kind::Histogram(MESSAGE_BOUNDS),
        unit: "s",
        help: "From sending a message of the class (chat, an answer, a raised hand) to the platform's answer, as measured by the pages.",
        labels: FLEET_LABELS,
        read: Read::FleetBuckets(|t| t.message_latency.as_ref()),
    },
    fleet(
        "liveqos_packet_count_total",
        "liveqos.packet.count",
        "{packet}",
        "Packets expected (TCP legs: segments sent).",
        |t| t.packets.map(|count| count as f64),
    ),
    fleet(
        "liveqos_packet_lost_total",
        "liveqos.packet.lost",
        "{packet}",
        "Packets lost before repair (TCP legs: segments retransmitted and not proven spurious).",
        |t| t.packets_lost.map(|count| count as f64),
    ),
    fleet(
        "liveqos_media_io_bytes_total",
        "liveqos.media.io",
        "By",
        "Media payload bytes; bitrate is 8 times its rate.",
        |t| t.bytes.map(|count| count as f64),
    ),
    fleet(
        "liveqos_frame_count_total",
        "liveqos.frame.count",
        "{frame}",
        "Media frames, where a server or player counts them.",
        |t| t.frames.map(|count| count as f64),
    ),
    shell(
        "liveqos_viewer_count",
        "liveqos.viewer.count",
        Kind::Gauge,
        "{viewer}",
        "Viewers of the live classes.",
        &["stream_type", "scenario"],
    ),
    shell("liveqos_session_active", "liveqos.session.active", Kind::Gauge, "{session}", "Live classes.", &["scenario"]),
    shell(
        "liveqos_sample_breach_total",
        "liveqos.sample.breach",
        Kind::Counter,
        "{sample}",
        "Samples that missed an objective.",
        &["kind"],
    ),
    leg(
        "liveqos_session_bitrate_bits_per_second",
        "liveqos.session.bitrate",
        "bit/s",
        "Media bits per second; on viewers' legs reported by players: per viewer.",
        |l| Some(l.bitrate?.value),
    ),
    leg("liveqos_session_fps", "liveqos.session.fps", "{frame}/s", "Distinct media frames per second.", |l| {
        Some(l.fps?.value)
    }),
    Metric {
        name: "liveqos_session_latency_seconds",
        otel_name: "liveqos.session.latency",
        kind: Kind::Summary,
        unit: "s",
        help: "Delivery latency that this share of the class's viewers does not exceed, in the newest window.",
        labels: SESSION_LABELS,
        read: Read::LegLatency(|l| Some(&l.latency.as_ref()?.value)),
    },
    leg(
        "liveqos_session_packet_loss_ratio",
        "liveqos.session.packet_loss",
        "1",
        "Packets lost over expected, before repair.",
        |l| Some(l.loss?.value.ratio()),
    ),
    leg("liveqos_session_viewers", "liveqos.session.viewers", "{viewer}", "Viewers of the class.", |l| {
        Some(f64::from(l.viewers?.value))
    }),
    leg(
        "liveqos_session_stutter_ratio",
        "liveqos.session.stutter",
        "1",
        "Stalled over exposure time of the class's viewers.",
        |l| Some(l.stutter?.value.ratio()),
    ),
    leg(
        "liveqos_session_coverage_ratio",
        "liveqos.session.coverage",
        "1",
        "Share of the audience that the viewer-side values cover.",
        LegSample::coverage,
    ),
    shell(
        "liveqos_path_rtt_seconds",
        "liveqos.path.rtt",
        Kind::Gauge,
        "s",
        "Median round trip of the pings to another node over the last 10 s.",
        &["peer"],
    ),
    shell(
        "liveqos_path_loss_ratio",
        "liveqos.path.loss",
        Kind::Gauge,
        "1",
        "Pings to another node that were lost over the last minute, in the worse direction.",
        &["peer"],
    ),
    shell("liveqos_node_cpu_ratio", "liveqos.node.cpu", Kind::Gauge, "1", "Processor time in use over all cores.", &[]),
    shell(
        "liveqos_node_memory_ratio",
        "liveqos.node.memory",
        Kind::Gauge,
        "1",
        "Memory not available to new work.",
        &[],
    ),
    shell(
        "liveqos_node_nic_ratio",
        "liveqos.node.nic",
        Kind::Gauge,
        "1",
        "Use of the busiest network interface in its busier direction, relative to its speed.",
        &[],
    ),
    shell(
        "liveqos_node_viewer_room",
        "liveqos.node.viewer_room",
        Kind::Gauge,
        "{viewer}",
        "Viewers that the node can still carry, by the present cost per viewer; absent under 20 viewers.",
        &[],
    ),
    shell(
        "liveqos_listener_connections",
        "liveqos.listener.connections",
        Kind::Gauge,
        "{connection}",
        "Established TCP connections of an access log's listener: known ones carry a class according to the log, unknown are all others.",
        &["port", "class"],
    ),
    shell(
        "liveqos_listener_backlog_bytes",
        "liveqos.listener.backlog",
        Kind::Gauge,
        "By",
        "Bytes written to the listener's connections and not sent yet.",
        &["port"],
    ),
    shell(
        "liveqos_listener_rtt_seconds",
        "liveqos.listener.rtt",
        Kind::Gauge,
        "s",
        "Median of the smoothed round trips of the listener's connections.",
        &["port"],
    ),
    shell(
        "liveqos_listener_segments_total",
        "liveqos.listener.segments",
        Kind::Counter,
        "{segment}",
        "TCP segments with data of the listener's connections: sent, and of them lost (retransmitted and not proven spurious).",
        &["port", "outcome"],
    ),
    shell("liveqos_probe_up", "liveqos.probe.up", Kind::Gauge, "1", "1 while the source answers.", &["source", "kind"]),
    shell(
        "liveqos_probe_duration_seconds",
        "liveqos.probe.duration",
        Kind::Gauge,
        "s",
        "Duration of the source's last round of requests.",
        &["source", "kind"],
    ),
    shell(
        "liveqos_probe_failures_total",
        "liveqos.probe.failures",
        Kind::Counter,
        "{round}",
        "Rounds and hooks that failed.",
        &["source", "kind", "reason"],
    ),
    shell(
        "liveqos_spool_bytes",
        "liveqos.spool.size",
        Kind::Gauge,
        "By",
        "Telemetry waiting to be sent.",
        &["target", "signal"],
    ),
    shell(
        "liveqos_spool_dropped_total",
        "liveqos.spool.dropped",
        Kind::Counter,
        "{record}",
        "Records dropped because the spool was full, the oldest first.",
        &["target", "signal"],
    ),
    shell(
        "liveqos_spool_damaged_total",
        "liveqos.spool.damaged",
        Kind::Counter,
        "{record}",
        "Records on disk that were found damaged or missing.",
        &["target", "signal"],
    ),
    shell(
        "liveqos_state_kept",
        "liveqos.state.kept",
        Kind::Gauge,
        "1",
        "1 while state and unsent telemetry are kept on disk, 0 while they are in memory only.",
        &[],
    ),
    shell(
        "liveqos_export_total",
        "liveqos.export",
        Kind::Counter,
        "{record}",
        "Telemetry records exported, by outcome.",
        &["target", "signal", "outcome"],
    ),
    shell(
        "liveqos_sampling_total",
        "liveqos.sampling",
        Kind::Counter,
        "{session}",
        "Classes by the sampling decision on their traces.",
        &["decision"],
    ),
    shell(
        "liveqos_tick_skew_seconds",
        "liveqos.tick.skew",
        Kind::Histogram(SKEW_BOUNDS),
        "s",
        "Delay of the engine's 250 ms tick.",
        &[],
    ),
    shell(
        "liveqos_shed_total",
        "liveqos.shed",
        Kind::Counter,
        "{item}",
        "Work refused or dropped, by reason; docs/metrics.md lists the reasons.",
        &["reason"],
    ),
    shell(
        "liveqos_overhead_cpu_ratio",
        "liveqos.overhead.cpu",
        Kind::Gauge,
        "1",
        "Processor time of the daemon itself, in cores.",
        &[],
    ),
    shell(
        "liveqos_overhead_memory_bytes",
        "liveqos.overhead.memory",
        Kind::Gauge,
        "By",
        "Resident memory of the daemon itself.",
        &[],
    ),
    shell(
        "liveqos_alert_firing",
        "liveqos.alert.firing",
        Kind::Gauge,
        "{alert}",
        "Alerts of the daemon that are firing.",
        &["alertname"],
    ),
    shell("liveqos_build_info", "liveqos.build.info", Kind::Gauge, "1", "1, with the version as label.", &["version"]),
];

/// Bounds of the tick's skew in seconds.
pub const SKEW_BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// The metric with this Prometheus name.
#[must_use]
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut seen = BTreeSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} is listed twice", metric.name);
            assert!(seen.insert(metric.otel_name), "{} is listed twice", metric.otel_name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && metric.name.starts_with("liveqos_"), "{}", metric.name);
            assert!(metric.unit != "s" || metric.name.contains("_seconds"), "{}", metric.name);
            assert!(metric.unit != "By" || metric.name.contains("_bytes"), "{}", metric.name);
        }
    }

    #[test]
    fn alert_thresholds_are_bucket_bounds() {
        assert!(LATENCY_BOUNDS.contains(&0.2));
        assert!(FIRST_FRAME_BOUNDS.contains(&2.0));
        assert!(SKEW_BOUNDS.contains(&0.05));
    }
}
