//! What became of the pings along one path. Decides when a ping is lost and in which direction: later ones returned and
//! it did not. Silence is not loss: as long as nothing returns, the other node may just be gone.

use std::collections::VecDeque;
use std::time::Duration;

use super::ping::{ECHOED, Echo};
use crate::model::Share;

/// Pings lost of those sent, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DirectionLoss {
    /// To the other node.
    pub out: Share,
    /// Back from it, of those it received.
    pub back: Share,
}

impl DirectionLoss {
    /// Adds further pings.
    pub fn add(&mut self, more: Self) {
        for (sum, more) in [(&mut self.out, more.out), (&mut self.back, more.back)] {
            sum.part += more.part;
            sum.whole += more.whole;
        }
    }

    /// The worse of both ratios; `None` where neither is known.
    #[must_use]
    pub fn worse(&self) -> Option<f64> {
        let known = [self.out, self.back].into_iter().filter(|share| share.whole > 0.0);
        known.map(Share::ratio).reduce(f64::max)
    }
}

/// The undecided pings of one connection; never more than [`ECHOED`].
#[derive(Clone, Debug, Default)]
pub struct PathLoss {
    next: u64,
    open: VecDeque<Open>,
    /// When the newest ping that returned was sent.
    returned: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    sent: Duration,
    received: bool,
    returned: bool,
}

impl PathLoss {
    /// A ping is to be sent at `now` (time since any fixed instant). Gives its number, or `None` while as many as an
    /// echo covers are undecided.
    pub fn send(&mut self, now: Duration) -> Option<u64> {
        if self.open.len() as u64 >= ECHOED {
            return None;
        }
        self.open.push_back(Open { sent: now, received: false, returned: false });
        self.next += 1;
        Some(self.next - 1)
    }

    /// An echo arrived. Gives its round trip, and the losses decided by it; `None` for the echo of a ping that was
    /// never sent, is decided already, or returned before.
    pub fn receive(&mut self, now: Duration, echo: &Echo) -> Option<(Duration, DirectionLoss)> {
        let first = self.next - self.open.len() as u64;
        let at = usize::try_from(echo.number.checked_sub(first)?).ok()?;
        let answered = self.open.get_mut(at).filter(|open| !open.returned)?;
        (answered.received, answered.returned) = (true, true);
        let sent = answered.sent;
        for (number, open) in (first..).zip(&mut self.open) {
            open.received |= echo.received.has(number);
        }
        self.returned = self.returned.max(Some(sent));
        Some((now.saturating_sub(sent), self.decide()))
    }

    /// Pings that are undecided.
    #[must_use]
    pub fn undecided(&self) -> usize {
        self.open.len()
    }

    fn decide(&mut self) -> DirectionLoss {
        let mut losses = DirectionLoss::default();
        let Some(returned) = self.returned else { return losses };
        while let Some(open) = self.open.pop_front_if(|open| open.sent + REORDERING_LIMIT <= returned) {
            losses.out.whole += 1.0;
            if open.received {
                losses.back.whole += 1.0;
                losses.back.part += f64::from(u8::from(!open.returned));
            } else {
                losses.out.part += 1.0;
            }
        }
        losses
    }
}

/// A ping is lost when one sent this much later returned and it did not; no network reorders by that much.
pub const REORDERING_LIMIT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::ping::ReceivedPings;

    /// Sends a ping every 20 ms; each arrival says whether the ping arrives, and whether its echo does. Gives the
    /// decided losses and the state.
    fn play(arrivals: impl IntoIterator<Item = (bool, bool)>) -> (DirectionLoss, PathLoss) {
        let (mut pings, mut received, mut sum) =
            (PathLoss::default(), ReceivedPings::default(), DirectionLoss::default());
        for (step, (comes, returns)) in (0_u32..).zip(arrivals) {
            let now = Duration::from_millis(20) * step;
            let Some(number) = pings.send(now) else { continue };
            let echo = comes.then(|| received.take(number)).filter(|_| returns);
            if let Some((rtt, losses)) = echo.and_then(|echo| pings.receive(now + Duration::from_millis(9), &echo)) {
                assert_eq!(rtt, Duration::from_millis(9));
                sum.add(losses);
            }
        }
        (sum, pings)
    }

    #[test]
    fn loss_is_counted_by_direction() {
        let arrivals = (0..200).map(|n| (n % 10 != 3, n % 7 != 2)).chain(std::iter::repeat_n((true, true), 26));
        let (losses, pings) = play(arrivals);
        assert_eq!((losses.out.part, losses.out.whole), (20.0, 201.0));
        let back = (0..200).filter(|n| n % 10 != 3 && n % 7 == 2).count() as f64;
        assert_eq!((losses.back.part, losses.back.whole), (back, 181.0));
        assert_eq!(pings.undecided(), 25, "the pings sent within the reordering limit");
    }

    #[test]
    fn silence_is_no_loss_until_something_returns() {
        let healthy = || std::iter::repeat_n((true, true), 100);
        let (losses, pings) = play(healthy().chain(std::iter::repeat_n((false, false), 2_000)));
        assert_eq!((losses.out.part, losses.back.part), (0.0, 0.0));
        assert_eq!(pings.undecided() as u64, ECHOED);
        let (losses, _) = play(healthy().chain(std::iter::repeat_n((false, false), 50)).chain(healthy()));
        assert_eq!((losses.out.part, losses.back.part), (50.0, 0.0), "the path was interrupted, as later pings show");
        let (losses, _) = play(healthy().chain(std::iter::repeat_n((true, false), 50)).chain(healthy()));
        assert_eq!((losses.out.part, losses.back.part), (0.0, 50.0));
    }

    #[test]
    fn an_echo_of_no_open_ping_is_refused() {
        let mut pings = PathLoss::default();
        assert_eq!(pings.receive(Duration::ZERO, &ReceivedPings::default().take(0)), None, "nothing was sent");
        let number = pings.send(Duration::ZERO).expect("room");
        let echo = ReceivedPings::default().take(number);
        assert!(pings.receive(Duration::ZERO, &echo).is_some());
        assert_eq!(pings.receive(Duration::ZERO, &echo), None, "it came back before");
        assert_eq!(pings.receive(Duration::ZERO, &ReceivedPings::default().take(u64::MAX)), None);
    }

    proptest! {
        #[test]
        fn every_ping_is_decided_once_and_correctly(arrivals in prop::collection::vec((any::<bool>(), any::<bool>()), 1..400)) {
            let healthy = || std::iter::repeat_n((true, true), 26);
            let all: Vec<_> = healthy().chain(arrivals).chain(healthy()).collect();
            let (losses, pings) = play(all.iter().copied());
            let decided = &all[..all.len() - pings.undecided()];
            let count = |of: fn(&(bool, bool)) -> bool| decided.iter().filter(|arrival| of(arrival)).count() as f64;
            prop_assert_eq!((losses.out.whole, losses.out.part), (decided.len() as f64, count(|arrival| !arrival.0)));
            prop_assert_eq!((losses.back.whole, losses.back.part), (count(|arrival| arrival.0), count(|arrival| arrival.0 && !arrival.1)));
        }

        #[test]
        fn any_echo_is_tolerated(
            sent in 0_u64..600,
            echoes in prop::collection::vec(prop::collection::vec(any::<u8>(), crate::node::ping::ECHO_BYTES - 1), 0..20)
        ) {
            let mut pings = PathLoss::default();
            for step in 0..sent {
                pings.send(Duration::from_millis(step * 20));
            }
            for echo in echoes {
                let bytes: Vec<u8> = std::iter::once(2).chain(echo).collect();
                if let Some(echo) = Echo::read(&bytes) {
                    pings.receive(Duration::from_mins(1), &echo);
                }
            }
            prop_assert!(pings.undecided() as u64 <= ECHOED);
        }
    }
}
