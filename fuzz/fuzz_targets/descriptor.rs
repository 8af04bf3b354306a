//! Any query: nothing may panic, and what is kept is what its own rules allow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::model::{Descriptor, MAX_NAME_BYTES, MAX_PAIRS, Name};

fuzz_target!(|query: &str| {
    let (class, refused) = Descriptor::from_query(query);
    assert!(refused as usize <= MAX_PAIRS);
    for name in [&class.session_id, &class.course_id, &class.teacher_id].into_iter().flatten() {
        assert!(name.as_str().len() <= MAX_NAME_BYTES);
        assert_eq!(Name::new(name.as_str()).as_ref(), Ok(name));
    }
    let mut merged = class.clone();
    merged.merge(class.clone());
    assert_eq!(merged, class);
});
