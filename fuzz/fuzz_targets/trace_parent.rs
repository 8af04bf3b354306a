//! Any text: it is read or refused, and what is read reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::trace_parent::TraceParent;

fuzz_target!(|text: &str| {
    if let Ok(parent) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&parent.to_string()), Ok(parent));
        assert_ne!(parent.trace_id, [0; 16]);
    }
});
