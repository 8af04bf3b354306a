//! Any lines of a recording: each is read or refused, what is read is written as it was meant, and the rules hear all
//! of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::model::{Objectives, Timestamp};
use liveqos_core::recording::{Event, Head, Playback, Settings, line};
use liveqos_core::session::SessionTimeouts;

fuzz_target!(|bytes: &[u8]| {
    let settings = Settings { objectives: Objectives::default(), timeouts: SessionTimeouts::default(), max_sessions: 8 };
    let own = Head::new("n".to_owned(), Timestamp::from_secs(1_000), settings);
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let head = lines.next().and_then(|first| Head::read(first).ok()).unwrap_or(own);
    let mut playback = Playback::new(&head, None);
    for written in lines.take(64) {
        let Ok(event) = Event::read(written) else {
            continue;
        };
        if let Ok(again) = line(&event) {
            assert_eq!(Event::read(&again).expect("what was written is read"), event);
        }
        playback.play(event);
    }
});
