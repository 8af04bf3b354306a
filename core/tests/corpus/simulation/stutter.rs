//! Alerts of stutter for simulated classes, through registry and evaluator as in live operation: false alarms of
//! healthy classes and the delay of faults.

use std::time::Duration;

use liveqos_core::alert::AlertEvaluator;
use liveqos_core::model::{
    Alert, Environment, Fact, Notice, NoticeState, Objectives, Observation, PlayerView, Protocol, ServerView,
    SourceName, StreamKey, TICK, Total,
};
use liveqos_core::session::{Registry, SessionTimeouts};

use super::crowd::{Crowd, Habit};
use super::dice::Dice;
use super::plain_rule::{Plain, Rule};
use super::world::START;

/// One class: its players report at each tick, its server each second.
struct Class {
    viewers: u32,
    habit: Habit,
    crowd: Crowd,
    dice: Dice,
    ticks: u32,
    registry: Registry,
    evaluator: AlertEvaluator,
    plain: Plain,
    names: (SourceName, SourceName, StreamKey),
}

impl Class {
    fn new(viewers: u32, habit: Habit, seed: u64) -> Self {
        Self {
            viewers,
            habit,
            crowd: Crowd::default(),
            dice: Dice::new(seed),
            ticks: 0,
            registry: Registry::new(SessionTimeouts::default(), 10),
            evaluator: AlertEvaluator::default(),
            plain: Plain::default(),
            names: ("srs".into(), "players".into(), StreamKey::parse("live/c1").expect("a good key")),
        }
    }

    /// One tick: notices of stutter, and whether the plain rule is exceeded.
    fn tick(&mut self) -> (Vec<Notice>, bool) {
        let at = START + TICK * self.ticks;
        let (server, players, stream) = self.names.clone();
        if self.ticks.is_multiple_of(4) {
            let view = ServerView {
                publishing: Some(true),
                ingest_bytes: Some(Total { base: 1, value: u64::from(self.ticks) * 62_500 }),
                viewers: Some(vec![(Protocol::Webrtc, self.viewers)]),
                ..ServerView::default()
            };
            let fact = Fact::Server(Box::new(view));
            self.registry.observe(Observation { source: server, stream: stream.clone(), at, fact });
        }
        let delta = self.crowd.tick(self.viewers, &self.habit, &mut self.dice);
        let view = PlayerView {
            protocol: Some(Protocol::Webrtc),
            viewers: self.viewers,
            exposure: Duration::from_secs_f64(delta.exposure),
            stalled: Duration::from_secs_f64(delta.stalled),
            stall_starts: delta.starts as u32,
            ..PlayerView::default()
        };
        self.registry.observe(Observation { source: players, stream, at, fact: Fact::Players(Box::new(view)) });
        self.registry.tick(at);
        self.ticks += 1;
        let notices = self.evaluator.evaluate(at, &Objectives::default(), &self.registry, &Environment::default());
        (notices, self.plain.tick(delta))
    }
}

/// False alarms of the evaluator and of the plain rule in this many healthy hours.
pub(crate) fn healthy(viewers: u32, habit: Habit, (hours, seed): (u64, u64)) -> (u64, u64) {
    let mut class = Class::new(viewers, habit, seed);
    let (mut ours, mut plains, mut over) = (0, 0, 0_u32);
    for _ in 0..hours * 14_400 {
        let (notices, plain) = class.tick();
        ours +=
            notices.iter().filter(|notice| notice.state == NoticeState::Firing && !notice.renotified).count() as u64;
        // As an alert that resolves after five seconds below the limit.
        plains += u64::from(plain && over == 0);
        over = if plain { 20 } else { over.saturating_sub(1) };
    }
    (ours, plains)
}

/// Delays in milliseconds of onsets after three healthy minutes, by evaluator and plain rule; a minute at most.
pub(crate) fn delays(viewers: u32, habit: Habit, (ratio, onsets): (f64, u64)) -> (Vec<u64>, Vec<u64>) {
    let (mut ours, mut plains) = (Vec::new(), Vec::new());
    for seed in 1..=onsets {
        let mut class = Class::new(viewers, habit, seed);
        for _ in 0..720 {
            class.tick();
        }
        class.habit.ratio = ratio;
        let (mut alerted, mut plainly) = (None, None);
        for tick in 1..=240_u64 {
            let (notices, plain) = class.tick();
            let fires = |notice: &Notice| notice.alert == Alert::LiveStutterHigh && notice.state == NoticeState::Firing;
            alerted = alerted.or(notices.iter().any(fires).then_some(tick * 250));
            plainly = plainly.or(plain.then_some(tick * 250));
            if alerted.is_some() && plainly.is_some() {
                break;
            }
        }
        ours.push(alerted.unwrap_or(60_000));
        plains.push(plainly.unwrap_or(60_000));
    }
    ours.sort_unstable();
    plains.sort_unstable();
    (ours, plains)
}

/// The delay in seconds at this share of the sorted delays.
pub(crate) fn at(delays: &[u64], share: f64) -> f64 {
    delays[((delays.len() as f64 * share) as usize).min(delays.len() - 1)] as f64 / 1e3
}

/// Stalls of healthy audiences by their length.
pub(crate) const HABITS: [(&str, Habit); 3] = [
    ("0.2 s", Habit { ratio: 0.003, length: 0.2, steady: true, together: 1.0 }),
    ("0.5 s", Habit { ratio: 0.003, length: 0.5, steady: false, together: 1.0 }),
    ("2 s", Habit { ratio: 0.003, length: 2.0, steady: false, together: 1.0 }),
];
