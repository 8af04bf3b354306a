//! Any datagrams at both ends of a path: what is read reads back, and no echo makes more pings decided than were sent.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use liveqos_core::node::{ReceivedPings, ECHO_BYTES, Echo, PathLoss};
use liveqos_core::node::ping::read_ping;

fuzz_target!(|data: &[u8]| {
    let (mut received, mut pings, mut sent, mut decided) = (ReceivedPings::default(), PathLoss::default(), 0_u64, 0.0);
    for (step, datagram) in (0_u32..).zip(data.chunks(ECHO_BYTES)) {
        let now = Duration::from_millis(20) * step;
        sent += u64::from(pings.send(now).is_some());
        if let Some(number) = read_ping(datagram) {
            let echo = received.take(number);
            assert_eq!(Echo::read(&echo.to_bytes()), Some(echo));
        }
        if let Some(echo) = Echo::read(datagram) {
            assert_eq!(echo.to_bytes(), datagram);
            if let Some((_, losses)) = pings.receive(now, &echo) {
                assert!(losses.out.part <= losses.out.whole && losses.back.part <= losses.back.whole);
                decided += losses.out.whole;
            }
        }
        assert_eq!(decided as u64 + pings.undecided() as u64, sent);
    }
});
