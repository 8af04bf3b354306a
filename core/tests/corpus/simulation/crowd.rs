//! The stalls of an audience, drawn in sums, so that 50,000 viewers cost little more than five.

use std::collections::VecDeque;

use super::dice::Dice;

/// How long a tick is, in seconds.
pub(crate) const TICK_SECONDS: f64 = 0.25;

/// How an audience stalls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Habit {
    /// Stalled over exposure time.
    pub(crate) ratio: f64,
    /// Mean length of a stall in seconds; lengths are exponential, 0.1 s at least, where `steady` does not say that all
    /// are alike.
    pub(crate) length: f64,
    pub(crate) steady: bool,
    /// Mean number of viewers that stall together.
    pub(crate) together: f64,
}

/// One tick of an audience: seconds watched and stalled, stalls that began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delta {
    pub(crate) exposure: f64,
    pub(crate) stalled: f64,
    pub(crate) starts: u64,
}

/// An audience, or a group of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    /// Stalled seconds and stalling viewers of this tick and those to come, by stalls that began already.
    coming: VecDeque<(f64, f64)>,
}

impl Crowd {
    /// The next tick of `viewers` viewers.
    pub(crate) fn tick(&mut self, viewers: u32, habit: &Habit, dice: &mut Dice) -> Delta {
        let viewers = f64::from(viewers);
        let (stalled, stalling) = self.coming.front().copied().unwrap_or_default();
        let free = (viewers - stalling).max(0.0);
        let starts_per_second = free * habit.ratio / (1.0 - habit.ratio).max(0.05) / habit.length;
        let clusters = dice.poisson(starts_per_second * TICK_SECONDS / habit.together);
        let mut starts: u64 =
            if habit.together > 1.0 { (0..clusters).map(|_| dice.cluster(habit.together)).sum() } else { clusters };
        starts = starts.min(free as u64);
        let mut now = stalled;
        for _ in 0..starts {
            let length = if habit.steady { habit.length } else { dice.wait(habit.length - 0.1) + 0.1 };
            let left = TICK_SECONDS * (1.0 - dice.roll());
            now += length.min(left);
            self.follow(length - left);
        }
        self.coming.pop_front();
        Delta { exposure: viewers * TICK_SECONDS, stalled: now.min(viewers * TICK_SECONDS), starts }
    }

    /// Spreads the rest of a stall over the coming ticks.
    fn follow(&mut self, mut rest: f64) {
        let mut ahead = 1;
        while rest > 0.0 {
            while self.coming.len() <= ahead {
                self.coming.push_back((0.0, 0.0));
            }
            self.coming[ahead].0 += rest.min(TICK_SECONDS);
            self.coming[ahead].1 += 1.0;
            rest -= TICK_SECONDS;
            ahead += 1;
        }
    }
}
