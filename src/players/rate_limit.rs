//! How often one source address may ask. Decides by a token bucket a source (an IPv4 address, a /64 of IPv6) in a table
//! of fixed size; refuses what comes faster and says when to come again. Two sources may share a bucket; which ones,
//! nobody outside can know.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of the table: 8 bytes each, whatever comes.
pub(super) const BUCKETS: usize = 1 << 15;

/// The table. A bucket is the instant at which it is full again (generic cell rate algorithm), so that it costs one
/// atomic number.
pub(super) struct Limiter {
    hasher: RandomState,
    buckets: Box<[AtomicU64]>,
    /// Nanoseconds that one request costs.
    cost: u64,
    /// Nanoseconds that may be used at once.
    depth: u64,
}

impl Limiter {
    /// A table of full buckets, for `per_second` requests a source in the long run and `burst` at once, each at least
    /// 1.
    #[must_use]
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let cost = SECOND / u64::from(per_second.max(1));
        let buckets = std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect();
        Self { hasher: RandomState::new(), buckets, cost, depth: cost.saturating_mul(u64::from(burst.max(1))) }
    }

    /// Takes one request of `source`; `now` is the time since any fixed instant.
    ///
    /// # Errors
    /// How long to wait when its bucket is empty.
    pub(super) fn take(&self, source: IpAddr, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.buckets[self.hasher.hash_one(place(source)) as usize % BUCKETS];
        let taken = bucket.try_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            let full = full.max(now).saturating_add(self.cost);
            (full - now <= self.depth).then_some(full)
        });
        taken.map(drop).map_err(|full| Duration::from_nanos((full + self.cost).saturating_sub(now + self.depth)))
    }
}

/// What counts as one source: of IPv6 the network of a subscriber, whose lower half anybody picks at will.
fn place(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_burst_then_the_rate_and_others_are_not_touched() {
        let limiter = Limiter::new(10, 3);
        let at = Duration::from_millis;
        let taken = |address: &str, millis| limiter.take(ip(address), at(millis));
        assert_eq!([taken("192.0.2.1", 0), taken("192.0.2.1", 0), taken("192.0.2.1", 0)], [Ok(()); 3]);
        assert_eq!(taken("192.0.2.1", 0), Err(at(100)));
        assert_eq!(taken("::ffff:192.0.2.1", 40), Err(at(60)), "the same address, written otherwise");
        assert_eq!(taken("192.0.2.1", 100), Ok(()));
        assert_eq!(taken("192.0.2.1", 1_000_000), Ok(()));
        let others = (2..200).filter(|last| taken(&format!("192.0.2.{last}"), 0).is_ok()).count();
        assert!(others >= 190, "{others} of 198: hardly any shares the bucket");
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let limiter = Limiter::new(1, 2);
        let taken = |last| limiter.take(ip(&format!("2001:db8:0:1::{last}")), Duration::ZERO);
        assert_eq!([taken(1), taken(2)], [Ok(()); 2]);
        assert!(taken(3).is_err());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(gaps in proptest::collection::vec(0_u64..500, 1..300), rate in 1_u32..50, burst in 1_u32..20) {
            let limiter = Limiter::new(rate, burst);
            let (mut now, mut taken) = (0, 0_u64);
            for gap in gaps {
                now += gap;
                taken += u64::from(limiter.take(ip("203.0.113.9"), Duration::from_millis(now)).is_ok());
                let allowed = f64::from(burst) + f64::from(rate) * now as f64 / 1e3;
                prop_assert!(taken as f64 <= allowed + 1e-3, "{} of {}", taken, allowed);
            }
        }
    }
}
