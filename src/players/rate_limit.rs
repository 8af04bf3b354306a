//! How often one source address may post. Decides by a token bucket for each source (an IPv4 address, or a /64 of IPv6)
//! in a table of fixed size; refuses requests beyond it and says when to retry. Two sources may share a bucket; clients
//! cannot find out which, because the table is keyed by a random hash.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of the table, of 8 bytes each.
pub(super) const BUCKETS: usize = 1 << 15;

/// The table. A bucket holds the instant at which it is full again, in nanoseconds (generic cell rate algorithm, ITU-T
/// I.371), so that it is one atomic number.
pub(super) struct RateLimiter {
    hasher: RandomState,
    buckets: Box<[AtomicU64]>,
    /// Cost of a request in nanoseconds.
    cost: u64,
    /// Depth of a bucket in nanoseconds.
    depth: u64,
}

impl RateLimiter {
    /// A table of full buckets that allows each source `per_second` requests in the long run and `burst` at once, both
    /// at least 1.
    #[must_use]
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let cost = SECOND / u64::from(per_second.max(1));
        let buckets = std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect();
        Self { hasher: RandomState::new(), buckets, cost, depth: cost.saturating_mul(u64::from(burst.max(1))) }
    }

    /// Counts a request of `source`; `now` is the time since any fixed instant.
    ///
    /// # Errors
    /// How long to wait, when its bucket is empty.
    pub(super) fn admit(&self, source: IpAddr, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.buckets[self.hasher.hash_one(network(source)) as usize % BUCKETS];
        let updated = bucket.try_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            let full = full.max(now).saturating_add(self.cost);
            (full - now <= self.depth).then_some(full)
        });
        updated.map(drop).map_err(|full| Duration::from_nanos((full + self.cost).saturating_sub(now + self.depth)))
    }
}

/// What counts as one source. Of IPv6 the network, because a subscriber chooses the lower 64 bits at will.
fn network(source: IpAddr) -> IpAddr {
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
    fn a_burst_then_the_rate_and_other_sources_are_unaffected() {
        let limiter = RateLimiter::new(10, 3);
        let at = Duration::from_millis;
        let taken = |address: &str, millis| limiter.admit(ip(address), at(millis));
        assert_eq!([taken("192.0.2.1", 0), taken("192.0.2.1", 0), taken("192.0.2.1", 0)], [Ok(()); 3]);
        assert_eq!(taken("192.0.2.1", 0), Err(at(100)));
        assert_eq!(taken("::ffff:192.0.2.1", 40), Err(at(60)), "the same address in its IPv6 form");
        assert_eq!(taken("192.0.2.1", 100), Ok(()));
        assert_eq!(taken("192.0.2.1", 1_000_000), Ok(()));
        let others = (2..200).filter(|last| taken(&format!("192.0.2.{last}"), 0).is_ok()).count();
        assert!(others >= 190, "{others} of 198: hardly any source shares the bucket");
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let limiter = RateLimiter::new(1, 2);
        let taken = |last| limiter.admit(ip(&format!("2001:db8:0:1::{last}")), Duration::ZERO);
        assert_eq!([taken(1), taken(2)], [Ok(()); 2]);
        assert!(taken(3).is_err());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(gaps in proptest::collection::vec(0_u64..500, 1..300), rate in 1_u32..50, burst in 1_u32..20) {
            let limiter = RateLimiter::new(rate, burst);
            let (mut now, mut taken) = (0, 0_u64);
            for gap in gaps {
                now += gap;
                taken += u64::from(limiter.admit(ip("203.0.113.9"), Duration::from_millis(now)).is_ok());
                let allowed = f64::from(burst) + f64::from(rate) * now as f64 / 1e3;
                prop_assert!(taken as f64 <= allowed + 1e-3, "{} of {}", taken, allowed);
            }
        }
    }
}
