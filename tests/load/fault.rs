//! How much each class's viewers stall now, and when the first line that shows a fault was written.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::audience::PART;

/// All classes.
pub(crate) struct Faults {
    classes: Vec<Class>,
    stall: RangeInclusive<u64>,
}

#[derive(Default)]
struct Class {
    /// Odd while there is a fault.
    number: AtomicU32,
    /// When its first stall began and when the first line that shows one was made, Unix ms.
    began: AtomicU64,
    seen: AtomicU64,
    written: AtomicU64,
}

/// What is known of a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    /// When the first stall began, Unix ms.
    pub(crate) began: u64,
    /// When the first line that shows it had been written, Unix ms.
    pub(crate) written: u64,
}

impl Faults {
    /// Healthy classes, whose stalls take a time of `stall` (ms), all alike likely.
    pub(crate) fn new(classes: usize, stall: RangeInclusive<u64>) -> Self {
        Self { classes: (0..classes).map(|_| Class::default()).collect(), stall }
    }

    /// Begins a fault.
    pub(crate) fn begin(&self, class: u16) {
        let class = &self.classes[usize::from(class)];
        class.seen.store(0, Ordering::Relaxed);
        class.written.store(0, Ordering::Relaxed);
        class.number.fetch_add(1, Ordering::Release);
    }

    /// Heals it.
    pub(crate) fn heal(&self, class: u16) {
        self.classes[usize::from(class)].number.fetch_add(1, Ordering::Release);
    }

    /// The fault that began last, once it was shown.
    pub(crate) fn shown(&self, class: u16) -> Option<Shown> {
        let class = &self.classes[usize::from(class)];
        let written = class.written.load(Ordering::Acquire);
        (written > 0).then(|| Shown { began: class.began.load(Ordering::Relaxed), written })
    }

    /// How long the answer to a request stalls its viewer (0: not), and in which fault.
    pub(crate) fn draw(&self, class: u16, random: &mut fastrand::Rng) -> (u64, u32) {
        let number = self.classes[usize::from(class)].number.load(Ordering::Acquire);
        let ratio = if number % 2 == 1 { FAULT } else { BASE };
        let mean = (self.stall.start() + self.stall.end()) / 2;
        // Stalls a part of play time, in millionths: ratio / (1 - ratio) of it, each of the mean.
        let chance = ratio * PART * 1_000_000 / ((1_000 - ratio) * mean);
        if random.u64(..1_000_000) >= chance {
            return (0, 0);
        }
        (self.stall.start() + random.u64(..=self.stall.end() - self.stall.start()), number)
    }

    /// A line is made that shows a stall which began at `began`, drawn in the fault `number`.
    pub(crate) fn evidence(&self, class: u16, number: u32, began: u64) {
        let class = &self.classes[usize::from(class)];
        let fits = number % 2 == 1 && class.number.load(Ordering::Relaxed) == number;
        if fits && class.seen.load(Ordering::Relaxed) == 0 {
            class.began.store(began, Ordering::Relaxed);
            class.seen.store(began, Ordering::Relaxed);
        }
    }

    /// All lines made so far were written by `now`.
    pub(crate) fn wrote(&self, now: u64) {
        for class in &self.classes {
            if class.seen.load(Ordering::Relaxed) > 0 && class.written.load(Ordering::Relaxed) == 0 {
                class.written.store(now, Ordering::Release);
            }
        }
    }
}

/// Stalled over watched time, in thousandths: healthy, and in a fault.
const BASE: u64 = 3;
const FAULT: u64 = 40;
