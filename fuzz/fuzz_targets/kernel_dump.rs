//! Any datagram in place of the kernel's: nothing may panic, and no more sockets come out than bytes could hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos::intake::kernel::diag_message::parse;

fuzz_target!(|datagram: &[u8]| {
    let mut sockets = Vec::new();
    let _step = parse(datagram, &mut sockets);
    assert!(sockets.len() <= datagram.len() / 72, "an inet_diag_msg has 72 bytes");
});
