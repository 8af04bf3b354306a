//! Any bytes as a sketch of viewers: refused, or the same when written again; joining and counting never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::base::ViewerSketch;

fuzz_target!(|data: &[u8]| {
    let (one, other) = data.split_at(data.len() / 2);
    let mut all = ViewerSketch::default();
    for bytes in [data, one, other] {
        if let Ok(sketch) = ViewerSketch::from_bytes(bytes) {
            assert_eq!(sketch.to_bytes(), bytes);
            all.merge(&sketch);
            assert!(all.count() < u64::MAX);
        }
    }
});
