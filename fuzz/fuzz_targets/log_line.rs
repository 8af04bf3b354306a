//! A log file of any bytes through the whole fold: nothing may panic, and every line is counted once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::connection::AttributionTable;
use liveqos_core::access_log::{ClassRule, LogFold, LogFormat};
use liveqos_core::model::Timestamp;

const TEXT: &str =
    r#"$remote_addr [$time_local] "$request" $status $body_bytes_sent "$http_cmcd_session" "$request_body" $remote_port $server_port $tcpinfo_rtt "$upstream_header_time" $server_protocol "$quic_stats""#;

fuzz_target!(|data: &[u8]| {
    for format in [LogFormat::json([]), LogFormat::text(TEXT)] {
        let mut fold = LogFold::new(format.expect("good"), ClassRule::ContentId, "fuzz".into(), [1, 2]);
        fold.connections().keep_reports([1, 2]);
        let mut claims = AttributionTable::new([1, 2]);
        let mut seen = 0;
        for line in data.split(|byte| *byte == b'\n') {
            seen += u64::from(!line.trim_ascii().is_empty());
            if let Ok(Some(now)) = fold.line(line) {
                fold.drain(now);
                claims.apply(&"fuzz".into(), now, fold.connections().take_reports());
            }
        }
        fold.finish(Timestamp::from_secs(2_000_000_000));
        assert_eq!(fold.counts().0, seen);
    }
});
