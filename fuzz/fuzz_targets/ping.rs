//! Any datagrams at both ends of a path: what is read reads back, and no echo makes more pings decided than were sent.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use liveqos_core::node::{Came, ECHO_BYTES, Echo, PathLoss};
use liveqos_core::node::ping::read_ping;

fuzz_target!(|data: &[u8]| {
    let (mut came, mut tally, mut sent, mut decided) = (Came::default(), PathLoss::default(), 0_u64, 0.0);
    for (step, datagram) in (0_u32..).zip(data.chunks(ECHO_BYTES)) {
        let now = Duration::from_millis(20) * step;
        sent += u64::from(tally.send(now).is_some());
        if let Some(number) = read_ping(datagram) {
            let echo = came.take(number);
            assert_eq!(Echo::read(&echo.to_bytes()), Some(echo));
        }
        if let Some(echo) = Echo::read(datagram) {
            assert_eq!(echo.to_bytes(), datagram);
            if let Some((_, ways)) = tally.hear(now, &echo) {
                assert!(ways.out.part <= ways.out.whole && ways.back.part <= ways.back.whole);
                decided += ways.out.whole;
            }
        }
        assert_eq!(decided as u64 + tally.undecided() as u64, sent);
    }
});
