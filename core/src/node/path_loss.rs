//! What became of the pings along one path. Decides when a ping is lost, and on which way: later ones came back and it
//! did not. Refuses to call silence a loss: as long as nothing comes back, the other node may as well be gone.

use std::collections::VecDeque;
use std::time::Duration;

use super::ping::{Echo, TOLD};
use crate::model::Share;

/// Pings lost of those sent, on each way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ways {
    /// On the way to the other node.
    pub out: Share,
    /// On the way back, of those that came there.
    pub back: Share,
}

impl Ways {
    /// Adds more.
    pub fn add(&mut self, more: Self) {
        for (sum, more) in [(&mut self.out, more.out), (&mut self.back, more.back)] {
            sum.part += more.part;
            sum.whole += more.whole;
        }
    }

    /// The worse of both ratios; `None` where nothing is known of either.
    #[must_use]
    pub fn worse(&self) -> Option<f64> {
        let known = [self.out, self.back].into_iter().filter(|share| share.whole > 0.0);
        known.map(Share::ratio).reduce(f64::max)
    }
}

/// The pings of one connection that are not decided yet. Holds at most [`TOLD`], whatever happens.
#[derive(Clone, Debug, Default)]
pub struct PathLoss {
    next: u64,
    open: VecDeque<Open>,
    /// When the newest of the pings that came back was sent.
    returned: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    sent: Duration,
    came: bool,
    back: bool,
}

impl PathLoss {
    /// A ping is to be sent now, a time since any fixed instant: its number, or `None` while as many as an echo can
    /// tell of are undecided.
    pub fn send(&mut self, now: Duration) -> Option<u64> {
        if self.open.len() as u64 >= TOLD {
            return None;
        }
        self.open.push_back(Open { sent: now, came: false, back: false });
        self.next += 1;
        Some(self.next - 1)
    }

    /// An echo came: its round trip, and what is decided by it. `None` for the echo of a ping that was never sent, is
    /// decided already, or came back before.
    pub fn hear(&mut self, now: Duration, echo: &Echo) -> Option<(Duration, Ways)> {
        let first = self.next - self.open.len() as u64;
        let at = usize::try_from(echo.number.checked_sub(first)?).ok()?;
        let answered = self.open.get_mut(at).filter(|open| !open.back)?;
        (answered.came, answered.back) = (true, true);
        let sent = answered.sent;
        for (number, open) in (first..).zip(&mut self.open) {
            open.came |= echo.came.has(number);
        }
        self.returned = self.returned.max(Some(sent));
        Some((now.saturating_sub(sent), self.decide()))
    }

    /// Pings that are not decided: while nothing comes back, those of the silence.
    #[must_use]
    pub fn undecided(&self) -> usize {
        self.open.len()
    }

    fn decide(&mut self) -> Ways {
        let mut ways = Ways::default();
        let Some(returned) = self.returned else { return ways };
        while let Some(open) = self.open.pop_front_if(|open| open.sent + PATIENCE <= returned) {
            ways.out.whole += 1.0;
            if open.came {
                ways.back.whole += 1.0;
                ways.back.part += f64::from(u8::from(!open.back));
            } else {
                ways.out.part += 1.0;
            }
        }
        ways
    }
}

/// A ping is lost when one that was sent so much later came back and it did not; no network reorders by that much.
pub const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::ping::Came;

    /// Sends a ping each 20 ms; `fate` says whether it comes, and whether its echo does. Gives what was decided and the
    /// tally.
    fn play(fates: impl IntoIterator<Item = (bool, bool)>) -> (Ways, PathLoss) {
        let (mut tally, mut came, mut sum) = (PathLoss::default(), Came::default(), Ways::default());
        for (step, (comes, returns)) in (0_u32..).zip(fates) {
            let now = Duration::from_millis(20) * step;
            let Some(number) = tally.send(now) else { continue };
            let echo = comes.then(|| came.take(number)).filter(|_| returns);
            if let Some((rtt, ways)) = echo.and_then(|echo| tally.hear(now + Duration::from_millis(9), &echo)) {
                assert_eq!(rtt, Duration::from_millis(9));
                sum.add(ways);
            }
        }
        (sum, tally)
    }

    #[test]
    fn loss_is_told_by_its_way() {
        let fates = (0..200).map(|n| (n % 10 != 3, n % 7 != 2)).chain(std::iter::repeat_n((true, true), 26));
        let (ways, tally) = play(fates);
        assert_eq!((ways.out.part, ways.out.whole), (20.0, 201.0));
        let back = (0..200).filter(|n| n % 10 != 3 && n % 7 == 2).count() as f64;
        assert_eq!((ways.back.part, ways.back.whole), (back, 181.0));
        assert_eq!(tally.undecided(), 25, "what was sent within the patience");
    }

    #[test]
    fn silence_is_no_loss_until_something_comes_back() {
        let healthy = || std::iter::repeat_n((true, true), 100);
        let (ways, tally) = play(healthy().chain(std::iter::repeat_n((false, false), 2_000)));
        assert_eq!((ways.out.part, ways.back.part), (0.0, 0.0));
        assert_eq!(tally.undecided() as u64, TOLD);
        let (ways, _) = play(healthy().chain(std::iter::repeat_n((false, false), 50)).chain(healthy()));
        assert_eq!((ways.out.part, ways.back.part), (50.0, 0.0), "what later pings crossed was a gap in the path");
        let (ways, _) = play(healthy().chain(std::iter::repeat_n((true, false), 50)).chain(healthy()));
        assert_eq!((ways.out.part, ways.back.part), (0.0, 50.0));
    }

    #[test]
    fn an_echo_of_nothing_is_refused() {
        let mut tally = PathLoss::default();
        assert_eq!(tally.hear(Duration::ZERO, &Came::default().take(0)), None, "nothing was sent");
        let number = tally.send(Duration::ZERO).expect("room");
        let echo = Came::default().take(number);
        assert!(tally.hear(Duration::ZERO, &echo).is_some());
        assert_eq!(tally.hear(Duration::ZERO, &echo), None, "it came back before");
        assert_eq!(tally.hear(Duration::ZERO, &Came::default().take(u64::MAX)), None);
    }

    proptest! {
        #[test]
        fn every_ping_is_decided_once_and_right(fates in prop::collection::vec((any::<bool>(), any::<bool>()), 1..400)) {
            let healthy = || std::iter::repeat_n((true, true), 26);
            let all: Vec<_> = healthy().chain(fates).chain(healthy()).collect();
            let (ways, tally) = play(all.iter().copied());
            let decided = &all[..all.len() - tally.undecided()];
            let count = |of: fn(&(bool, bool)) -> bool| decided.iter().filter(|fate| of(fate)).count() as f64;
            prop_assert_eq!((ways.out.whole, ways.out.part), (decided.len() as f64, count(|fate| !fate.0)));
            prop_assert_eq!((ways.back.whole, ways.back.part), (count(|fate| fate.0), count(|fate| fate.0 && !fate.1)));
        }

        #[test]
        fn no_echo_shakes_it(
            sent in 0_u64..600,
            echoes in prop::collection::vec(prop::collection::vec(any::<u8>(), crate::node::ping::ECHO_BYTES - 1), 0..20)
        ) {
            let mut tally = PathLoss::default();
            for step in 0..sent {
                tally.send(Duration::from_millis(step * 20));
            }
            for echo in echoes {
                let bytes: Vec<u8> = std::iter::once(2).chain(echo).collect();
                if let Some(echo) = Echo::read(&bytes) {
                    tally.hear(Duration::from_mins(1), &echo);
                }
            }
            prop_assert!(tally.undecided() as u64 <= TOLD);
        }
    }
}
