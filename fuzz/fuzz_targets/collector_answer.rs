//! Any answer of a collector: bodies, status details, dates. Nothing may panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos::otlp::retry::{read_response, retry_info};
use liveqos::platform::retry_after;

fuzz_target!(|bytes: &[u8]| {
    drop(read_response(bytes));
    let _delay = retry_info(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _after = retry_after::parse(text, Some(text));
    }
});
