//! Loss of one TCP connection from reading to reading: (Δretransmitted − Δneedless) of Δsent segments. Decides what a
//! late report of a needless retransmission takes back; refuses a difference to a first reading or over counters that
//! went back.

use super::tcp_info::{SegmentTotals, TcpReading};

/// What is remembered of a connection's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpLoss {
    segments: Option<SegmentTotals>,
    /// Needless retransmissions reported after their loss was counted: taken off what is lost next.
    forgiven: u32,
}

impl TcpLoss {
    /// Moves on to `reading`; gives the segments (sent, lost) since the last one, or `None` when the kernel does not
    /// tell.
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
