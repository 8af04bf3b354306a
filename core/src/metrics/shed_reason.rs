//! The values of the label `reason` of `liveqos_shed_total`. Decides their names, which dashboards and alert rules rely
//! on; no other value is exported.

/// Defines the enum, its list, its names and their meanings from one table.
macro_rules! shed_reasons {
    ($($variant:ident = $name:literal: $meaning:literal;)+) => {
        /// Why work was refused or dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ShedReason {
            $(#[doc = $meaning] $variant,)+
        }

        impl ShedReason {
            /// All of them, by name.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label's value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What one count stands for, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)+
                }
            }
        }
    };
}

shed_reasons! {
    BeaconBadReport = "beacon_bad_report": "A player report without a valid class, viewer, number or exposure.";
    BeaconBadToken = "beacon_bad_token": "A player report whose token is missing, or of another class or key.";
    BeaconBadValue = "beacon_bad_value": "A value of a player report that is out of range; the rest of the report counts.";
    BeaconClosed = "beacon_closed": "A player report while `beacon.key_file` is not set.";
    BeaconEnded = "beacon_ended": "A player report for a class that the platform ended.";
    BeaconExpired = "beacon_expired": "A player report whose token has expired.";
    BeaconFull = "beacon_full": "A player report for which the tables of viewers or classes have no room.";
    BeaconGroups = "beacon_groups": "A viewer whose network or player exceeds the groups distinguished in its class.";
    BeaconRepeated = "beacon_repeated": "A player report that arrived before.";
    BeaconTooLarge = "beacon_too_large": "A player report of more than 4 KiB.";
    BeaconTooMuch = "beacon_too_much": "A player report of more time than has passed.";
    BodyBroken = "body_broken": "A request whose body ended early or has another length than it declared.";
    BodyPacked = "body_packed": "A request whose body is compressed.";
    BodySlow = "body_slow": "A request whose body did not arrive within 5 s.";
    BodyTooLarge = "body_too_large": "A request whose body has more than 64 KiB.";
    ClockSetBack = "clock_set_back": "A live class forgotten because the system clock was set back.";
    CmcdBadSession = "cmcd_bad_session": "A CMCD post whose `session_id` is invalid, or missing beside a token.";
    CmcdBadToken = "cmcd_bad_token": "A CMCD post whose token is missing, or of another class or key.";
    CmcdClosed = "cmcd_closed": "A CMCD post while no key and no trusted network is set.";
    CmcdEnded = "cmcd_ended": "A CMCD post for a class that the platform ended.";
    CmcdExpired = "cmcd_expired": "A CMCD post whose token has expired.";
    CmcdFull = "cmcd_full": "A CMCD post that found the queue full.";
    CmcdMediaType = "cmcd_media_type": "A CMCD post whose body is neither `application/cmcd` nor `text/cmcd`.";
    CmcdTooManyViewers = "cmcd_too_many_viewers": "A CMCD report of a viewer beyond the new ones that one post may bring.";
    CmcdUnreadable = "cmcd_unreadable": "A CMCD post without any readable record that has a `sid`.";
    CmcdWrongSession = "cmcd_wrong_session": "A CMCD report of a viewer that is in another class than its token.";
    HttpConnections = "http_connections": "A connection to `http.listen` beyond the limit of connections.";
    IngestConnections = "ingest_connections": "A player's connection beyond the limit of connections.";
    LogCmcdVersion = "log_cmcd_version": "A record of a CMCD version that is not supported.";
    LogCmcdValue = "log_cmcd_value": "A malformed CMCD value; the rest of the record counts.";
    LogConnectionClasses = "log_connection_classes": "A log line whose class exceeds those that connections are attributed to, or has an invalid name.";
    LogConnections = "log_connections": "A log line whose connection exceeds the connections kept.";
    LogEventLost = "log_event_lost": "A CMCD event report that never arrived, by the gaps in its numbering.";
    LogEventRepeated = "log_event_repeated": "A CMCD event report that arrived twice or too late.";
    LogEventUnmatched = "log_event_unmatched": "A CMCD event report of a viewer that made no request, so that its class is unknown.";
    LogGroups = "log_groups": "A viewer whose network, region or player exceeds the groups distinguished in its class.";
    LogLineForm = "log_line_form": "A log line that does not fit the configured format.";
    LogLineLong = "log_line_long": "A log line that is too long.";
    LogLineTime = "log_line_time": "A log line without a readable time.";
    LogPorts = "log_ports": "A log line whose listener exceeds the listeners kept.";
    LogPosition = "log_position": "A position file of an access log that was unreadable.";
    LogSessionDisplaced = "log_session_displaced": "A nearly unused class replaced by a new one in a full table.";
    LogSessions = "log_sessions": "A request whose class found no room, or has an invalid name.";
    LogViewerDisplaced = "log_viewer_displaced": "A viewer seen once or no longer present, replaced by a new one in a full table.";
    LogViewers = "log_viewers": "A request whose viewer found no room.";
    MaxRegistrations = "max_registrations": "An announced class beyond the announcements kept.";
    MaxSessions = "max_sessions": "An observation of a class beyond the live classes kept.";
    Observations = "observations": "A batch of kernel observations that found the queue to the engine full.";
    Orders = "orders": "An API request that found the queue to the engine full.";
    PathConnections = "path_connections": "A node refused because 1,024 others are connected.";
    PathEchoRate = "path_echo_rate": "A ping not answered because pings came faster than 100 a second.";
    PathEchoes = "path_echoes": "An echo that pushed an older one out of a full queue.";
    PathPings = "path_pings": "A ping not sent because 512 are undecided.";
    PathRefused = "path_refused": "A handshake of another node that failed: no certificate of the authority, or too slow.";
    PathUnrecognized = "path_unrecognized": "A datagram that is no ping, or no echo of an open ping.";
    Recording = "recording": "An event that the recording does not contain: it is full, ended, or its disk is too slow.";
    SessionSeries = "session_series": "A class without series of its own, beyond `metrics.max_sessions`.";
    Silenced = "silenced": "An alert that a silence covers.";
    SockDiag = "sock_diag": "A reading of the kernel's TCP sockets that failed.";
    Sockets = "sockets": "A TCP socket beyond those read at once.";
    SourceRate = "source_rate": "A request from an address that exceeds `ingest.rate_per_second`.";
    StateEntries = "state_entries": "A change of state dropped because the disk did not accept it for many minutes.";
    SyslogForm = "syslog_form": "A datagram that is no syslog message.";
    SyslogLost = "syslog_lost": "A syslog datagram that the kernel dropped because its buffer was full.";
    SyslogSender = "syslog_sender": "A syslog datagram from a sender that is not trusted.";
    TlsHandshake = "tls_handshake": "A TLS handshake of a player that failed or was too slow.";
    TrackedSockets = "tracked_sockets": "A TCP socket beyond those followed.";
    WebhookQueue = "webhook_queue": "An alert that found the receiver's queue full.";
    WebhookRefused = "webhook_refused": "An alert that a receiver refused, or did not accept within 15 minutes.";
    WebhookStanding = "webhook_standing": "An alert beyond those kept for a receiver.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unique_and_have_a_meaning() {
        let names: std::collections::BTreeSet<_> = ShedReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), ShedReason::ALL.len());
        for reason in ShedReason::ALL {
            let name = reason.as_str();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(reason.meaning().ends_with('.'), "{name}");
        }
    }
}
