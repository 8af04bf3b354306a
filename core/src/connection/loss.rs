//! Loss of one TCP connection between two readings: (Δretransmitted − Δneedless) of Δsent segments. A retransmission
//! reported as needless after its loss was counted reduces the next loss. There is no difference to a first reading or
//! over counters that went back.

use super::tcp_info::{SegmentTotals, TcpReading};

/// The counters of a connection at its last reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpLoss {
    segments: Option<SegmentTotals>,
    /// Retransmissions reported as needless after their loss was counted; deducted from the next losses.
    forgiven: u32,
}

impl TcpLoss {
    /// Advances to `reading`; returns the segments (sent, lost) since the last one, or `None` when the kernel does not
    /// report them.
    pub(crate) fn advance(&mut self, reading: &TcpReading) -> Option<(u32, u32)> {
        let (earlier, later) = (self.segments, reading.segment_totals());
        self.segments = later;
        let delta = later?.since(earlier?)?;
        let cleared = delta.dsacked.saturating_add(self.forgiven);
        self.forgiven = cleared.saturating_sub(delta.retransmitted);
        let lost = delta.retransmitted.saturating_sub(cleared);
        Some((delta.sent, lost.min(delta.sent)))
    }
}
