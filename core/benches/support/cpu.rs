//! CPU time of this thread: neighbours on a shared machine must not count.

use std::time::Duration;

/// `struct timespec` of 64-bit Linux.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanos: i64,
}

/// `CLOCK_THREAD_CPUTIME_ID` of linux/time.h.
const THREAD_CPU: i32 = 3;

#[expect(unsafe_code, reason = "the standard library has no CPU clock")]
// SAFETY: the declaration is that of clock_gettime(2) on 64-bit Linux.
unsafe extern "C" {
    fn clock_gettime(clock: i32, at: *mut Timespec) -> i32;
}

/// What this thread spent so far.
#[expect(unsafe_code, reason = "the standard library has no CPU clock")]
pub(crate) fn spent() -> Duration {
    let mut at = Timespec { seconds: 0, nanos: 0 };
    // SAFETY: `at` is a valid timespec that outlives the call.
    let failed = unsafe { clock_gettime(THREAD_CPU, &raw mut at) } != 0;
    assert!(!failed, "this system has no CPU clock of threads");
    Duration::new(at.seconds.unsigned_abs(), at.nanos as u32)
}
