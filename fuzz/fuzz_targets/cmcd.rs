//! Any query value, header or event body: nothing may panic, and what is kept is within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::base::percent::decode_form;
use liveqos_core::cmcd::{Cmcd, MAX_SID, NEWEST_VERSION, Text, records};

fuzz_target!(|data: &[u8]| {
    let mut decoded = Vec::new();
    decode_form(data, &mut decoded);
    assert!(decoded.len() <= data.len());
    let mut scratch = Vec::new();
    assert_eq!(Cmcd::of_query(data, &mut scratch), Cmcd::parse(&decoded), "read encoded and decoded alike");
    for record in records(data).chain([decoded.as_slice()]) {
        if let Ok(set) = Cmcd::parse(record) {
            assert!(set.v.is_none_or(|version| version <= NEWEST_VERSION));
            assert!(set.sid.map_or(0, |sid| Text::raw(sid).len()) <= MAX_SID);
        }
    }
});
