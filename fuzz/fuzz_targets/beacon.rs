//! Any body of a player, signed: it is folded or refused, and what is folded keeps to its bounds.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use liveqos::players::{Beacons, Key, MAX_MESSAGES, MAX_SPAN, Taken};
use liveqos::intake::access_log::Requester;
use liveqos_core::model::{Fact, Timestamp};

const AT: Timestamp = Timestamp::from_secs(1_000_000);

static KEY: LazyLock<Key> = LazyLock::new(|| Key::new(&[7; 32]).expect("long enough"));
static TOKEN: LazyLock<String> = LazyLock::new(|| KEY.sign("s1", AT + Duration::from_secs(60)));

fuzz_target!(|body: &[u8]| {
    let beacons = Beacons::new(Some(KEY.clone()), [1, 2], Arc::default());
    let sender = Requester { address: Some([192, 0, 2, 7].into()), agent: body.into() };
    let taken = beacons.report(body, Some(&TOKEN), &sender, AT).is_ok();
    if taken {
        assert_eq!(beacons.report(body, Some(&TOKEN), &sender, AT).ok(), Some(Taken::Repeated));
    }
    let told = beacons.drain(AT);
    assert_eq!(told.len(), usize::from(taken));
    for observation in told {
        let Fact::Players(view) = observation.fact else {
            panic!("players only");
        };
        assert!(view.exposure <= MAX_SPAN && view.stalled <= view.exposure);
        assert!(view.messages.is_none_or(|messages| messages.len() <= MAX_MESSAGES as u64));
        assert!(view.groups.iter().all(|group| group.exposure <= view.exposure && group.stalled <= view.stalled));
        assert!(view.packets_lost.unwrap_or(0) <= view.packets_expected.unwrap_or(0));
    }
});
