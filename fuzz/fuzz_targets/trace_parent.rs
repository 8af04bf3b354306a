//! Any text: it is read or refused, and what is read reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos::otlp::sampling::{Randomness, Threshold};
use liveqos_core::model::{TraceParent, TraceState};

fuzz_target!(|text: &str| {
    if let Ok(parent) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&parent.to_string()), Ok(parent));
        assert_ne!(parent.trace_id, [0; 16]);
    }
    if let Ok(state) = TraceState::parse(text) {
        assert_eq!(TraceState::parse(state.as_str()), Ok(state));
    }
    if let Some(threshold) = Threshold::parse(text) {
        assert_eq!(Threshold::parse(&threshold.to_string()), Some(threshold));
    }
    let _randomness = Randomness::parse(text);
});
