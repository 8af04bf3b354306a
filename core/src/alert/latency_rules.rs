//! Delivery latency of one class's legs against the objective. Decides which leg is the worst and how long its latency
//! must stay over the limit before it is an alert: the fewer viewers are late, the longer.

use std::time::Duration;

use super::evidence::{CLEAR, evidence};
use super::hysteresis::{Finding, Rule};
use crate::model::{Objectives, Timestamp};
use crate::session::Live;

/// The finding of the worst leg, and how long a breach must last: the fewer viewers are late, the longer.
pub(super) fn latency(firing: bool, now: Timestamp, objectives: &Objectives, live: &Live) -> (Rule, Finding) {
    let mut found: Option<(u64, Rule, Finding)> = None;
    for (protocol, leg) in live.legs() {
        let Some((latencies, _)) = leg.latest(now) else { continue };
        let limit = objectives.of(protocol).latency;
        let viewers = latencies.len();
        // The 95th percentile is over a bar when more viewers than this are.
        let allowed = viewers - (viewers as f64 * 0.95).ceil() as u64;
        let late = latencies.count_over((limit * 1e3) as u64);
        let evidence = || {
            let p95 = latencies.quantile_millis(0.95).unwrap_or_default() as f64 / 1e3;
            evidence(p95, limit, "seconds", (viewers as f64, "viewers"))
        };
        let (rule, finding) = if late > allowed {
            let bad = evidence();
            (held_for(late, bad.value > 2.0 * limit), Finding::Bad(bad, now))
        } else if latencies.count_over((limit * CLEAR * 1e3) as u64) > allowed {
            (held_for(1, false), Finding::Between)
        } else {
            (held_for(1, false), if firing { Finding::Good(evidence()) } else { Finding::GoodUnmeasured })
        };
        let rank = match finding {
            Finding::Bad(..) => 2 + late,
            Finding::Between => 1,
            _ => 0,
        };
        if found.as_ref().is_none_or(|(known, ..)| rank > *known) {
            found = Some((rank, rule, finding));
        }
    }
    found.map_or((Rule::SUSTAINED, Finding::Unknown), |(_, rule, finding)| (rule, finding))
}

/// How long a latency over its limit must last: one viewer proves nothing about the class, many that are far over it
/// prove it at once.
const fn held_for(late: u64, far: bool) -> Rule {
    let (bad, of) = match late {
        0 | 1 => (24, 32),
        2..=4 => (6, 8),
        _ if far => (3, 4),
        _ => (4, 5),
    };
    Rule { bad, of, clear_after: Duration::from_secs(5) }
}
