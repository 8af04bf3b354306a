//! One TCP connection as the kernel's socket dump describes it. Decides which values older kernels omit and when two
//! counter readings give a difference; a value that is not reported is absent, never zero.

use std::net::SocketAddr;
use std::time::Duration;

/// One established TCP socket as `sock_diag` showed it: `struct inet_diag_msg` (`linux/inet_diag.h`) with its
/// `struct tcp_info` (`linux/tcp.h`). A field is `None` when the kernel's structure ends before it or when the kernel
/// marks it as not measured yet. Counters are totals since the connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpReading {
    /// This node's end, `idiag_src` and `idiag_sport`; an IPv4-mapped IPv6 address is given as IPv4.
    pub local: SocketAddr,
    /// The other end, `idiag_dst` and `idiag_dport`; an IPv4-mapped IPv6 address is given as IPv4.
    pub peer: SocketAddr,
    /// `idiag_cookie`, both halves: the socket's number, never given twice within a network namespace and a boot.
    pub identity: u64,
    /// `idiag_inode`: the number that `/proc/<pid>/fd` shows; 0 while no process has accepted the connection.
    pub inode: u32,
    /// `idiag_rqueue`, bytes: received and not yet read by the server.
    pub rqueue_bytes: u32,
    /// `idiag_wqueue`, bytes: written by the server and not yet acknowledged by the peer, sent or unsent.
    pub wqueue_bytes: u32,
    /// `tcpi_rtt`, kernel unit µs: smoothed round-trip time; `None` before the first measurement (kernel value 0).
    pub rtt: Option<Duration>,
    /// `tcpi_min_rtt` (Linux 4.6), kernel unit µs: least round-trip time of the last minutes; `None` when not measured.
    pub min_rtt: Option<Duration>,
    /// `tcpi_unacked`, segments: sent and not yet acknowledged.
    pub unacked_segments: Option<u32>,
    /// `tcpi_last_data_sent`, kernel unit ms: age of the last data sent.
    pub last_data_sent: Option<Duration>,
    /// `tcpi_last_ack_recv`, kernel unit ms: age of the last acknowledgement of any kind, window probes included.
    pub last_ack_received: Option<Duration>,
    /// `tcpi_total_retrans`, segments retransmitted.
    pub retransmitted_segments: Option<u32>,
    /// `tcpi_bytes_acked` (Linux 4.1), bytes proven received by the peer.
    pub bytes_acked: Option<u64>,
    /// `tcpi_bytes_received` (Linux 4.1), bytes received in order from the peer.
    pub bytes_received: Option<u64>,
    /// `tcpi_notsent_bytes` (Linux 4.6), bytes written by the server and not yet sent even once.
    pub notsent_bytes: Option<u32>,
    /// `tcpi_data_segs_out` (Linux 4.6), segments with data sent, retransmissions included.
    pub data_segments_sent: Option<u32>,
    /// `tcpi_delivery_rate` (Linux 4.9), bytes per second the path last carried; `None` when not measured (kernel value
    /// 0).
    pub delivery_bytes_per_second: Option<u64>,
    /// `tcpi_delivery_rate_app_limited` (Linux 4.9): the delivery rate is a lower bound, because the server had no more
    /// to send.
    pub app_limited: Option<bool>,
    /// `tcpi_busy_time` (Linux 4.10), kernel unit µs: time with data waiting to be acknowledged.
    pub busy: Option<Duration>,
    /// `tcpi_rwnd_limited` (Linux 4.10), kernel unit µs: part of `busy` in which the peer's window was the limit.
    pub rwnd_limited: Option<Duration>,
    /// `tcpi_sndbuf_limited` (Linux 4.10), kernel unit µs: part of `busy` in which this node's send buffer was the
    /// limit.
    pub sndbuf_limited: Option<Duration>,
    /// `tcpi_bytes_sent` (Linux 4.19), payload bytes sent, retransmissions included.
    pub bytes_sent: Option<u64>,
    /// `tcpi_bytes_retrans` (Linux 4.19), payload bytes retransmitted.
    pub bytes_retransmitted: Option<u64>,
    /// `tcpi_dsack_dups` (Linux 4.19), segments the peer says it got twice: retransmissions that were not needed (RFC
    /// 2883).
    pub dsack_segments: Option<u32>,
    /// `tcpi_snd_wnd` (Linux 5.4), bytes of window the peer offers; 0 means that its player does not read.
    pub send_window_bytes: Option<u32>,
}

impl TcpReading {
    /// A reading that contains only the two ends: every value absent, both queues empty.
    #[must_use]
    pub const fn bare(local: SocketAddr, peer: SocketAddr, identity: u64) -> Self {
        Self {
            local,
            peer,
            identity,
            inode: 0,
            rqueue_bytes: 0,
            wqueue_bytes: 0,
            rtt: None,
            min_rtt: None,
            unacked_segments: None,
            last_data_sent: None,
            last_ack_received: None,
            retransmitted_segments: None,
            bytes_acked: None,
            bytes_received: None,
            notsent_bytes: None,
            data_segments_sent: None,
            delivery_bytes_per_second: None,
            app_limited: None,
            busy: None,
            rwnd_limited: None,
            sndbuf_limited: None,
            bytes_sent: None,
            bytes_retransmitted: None,
            dsack_segments: None,
            send_window_bytes: None,
        }
    }

    /// The counters from which loss is computed; `None` unless the kernel reports all three (Linux 4.19).
    #[must_use]
    pub fn segment_totals(&self) -> Option<SegmentTotals> {
        Some(SegmentTotals {
            sent: self.data_segments_sent?,
            retransmitted: self.retransmitted_segments?,
            dsacked: self.dsack_segments?,
        })
    }
}

/// The three totals of TCP loss, in segments since the connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTotals {
    /// Segments with data sent, retransmissions included.
    pub sent: u32,
    /// Segments retransmitted.
    pub retransmitted: u32,
    /// Retransmissions the peer reports as not needed.
    pub dsacked: u32,
}

impl SegmentTotals {
    /// What was added since `earlier`; `None` when any of the three went back, because the counters restarted.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            sent: self.sent.checked_sub(earlier.sent)?,
            retransmitted: self.retransmitted.checked_sub(earlier.retransmitted)?,
            dsacked: self.dsacked.checked_sub(earlier.dsacked)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(sent: u32, retransmitted: u32, dsacked: u32) -> SegmentTotals {
        SegmentTotals { sent, retransmitted, dsacked }
    }

    #[test]
    fn a_counter_going_back_gives_no_difference() {
        let base = totals(100, 5, 1);
        assert_eq!(totals(130, 8, 2).since(base), Some(totals(30, 3, 1)));
        assert_eq!(totals(99, 8, 2).since(base), None);
        assert_eq!(totals(130, 4, 2).since(base), None);
        assert_eq!(totals(130, 8, 0).since(base), None);
    }

    #[test]
    fn loss_needs_all_three_counters() {
        let at = "127.0.0.1:1935".parse().unwrap();
        let mut reading = TcpReading::bare(at, at, 1);
        assert_eq!(reading.segment_totals(), None);
        (reading.data_segments_sent, reading.retransmitted_segments) = (Some(10), Some(1));
        assert_eq!(reading.segment_totals(), None, "an older kernel without duplicate reports has no loss");
        reading.dsack_segments = Some(0);
        assert_eq!(reading.segment_totals(), Some(totals(10, 1, 0)));
    }
}
