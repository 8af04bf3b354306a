//! Any bytes as a syslog datagram, and as a path against a pattern.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::access_log::ClassPattern;
use liveqos_core::access_log::syslog::message;

fuzz_target!(|data: &[u8]| {
    if let Some(message) = message(data) {
        assert!(message.len() < data.len());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let (pattern, path) = text.split_once('\n').unwrap_or(("/live/{class}/...", text));
        if let Ok(pattern) = ClassPattern::new(pattern, "live") {
            assert!(pattern.read(path).is_none_or(|read| path.contains(read.name)));
        }
    }
});
