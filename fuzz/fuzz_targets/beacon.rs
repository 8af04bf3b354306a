//! Any body of a player: it is folded or refused, and what is folded keeps to its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::model::{Fact, Timestamp};
use liveqos_core::viewer::{
    Address, Beacon, BeaconBody, BeaconFold, BeaconOutcome, MAX_EXPOSURE, MAX_MESSAGES, Origin, PlayerName,
};

const AT: Timestamp = Timestamp::from_secs(1_000_000);

fuzz_target!(|bytes: &[u8]| {
    let mut fold = BeaconFold::new([1, 2]);
    let Ok(body) = BeaconBody::parse(bytes) else {
        return;
    };
    let (Ok(session), Ok(report)) = (body.session(), body.report()) else {
        return;
    };
    let player = PlayerName { agent: bytes, ..PlayerName::default() };
    let origin = Origin { address: Address::Known([192, 0, 2, 7].into()), region: b"", player };
    let beacon = Beacon { session: &session, viewer: 7, report, origin, at: AT };
    let counted = fold.add(beacon.clone()).is_ok();
    if counted {
        assert_eq!(fold.add(beacon), Ok(BeaconOutcome::Repeated));
    }
    let observations = fold.drain(AT);
    assert_eq!(observations.len(), usize::from(counted));
    for observation in observations {
        let Fact::Players(view) = observation.fact else {
            panic!("players only");
        };
        assert!(view.exposure <= MAX_EXPOSURE && view.stalled <= view.exposure);
        assert!(view.messages.is_none_or(|messages| messages.len() <= MAX_MESSAGES as u64));
        assert!(view.groups.iter().all(|group| group.exposure <= view.exposure && group.stalled <= view.stalled));
        assert!(view.packets_lost.unwrap_or(0) <= view.packets_expected.unwrap_or(0));
    }
});
