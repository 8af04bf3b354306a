//! False alarms of healthy classes and the delay of faults, by size of the class, through registry and judge as in live
//! operation. `cargo test -p liveqos-core --release --test corpus -- --ignored --nocapture table` plays ten thousand
//! class-hours (half an hour of one core).

use std::time::Duration;

use liveqos_core::alert::AlertEvaluator;
use liveqos_core::model::{
    Alert, Environment, Fact, Notice, NoticeState, Objectives, Observation, PlayerView, Protocol, ServerView,
    SourceName, StreamKey, TICK, Total,
};
use liveqos_core::session::{Registry, SessionTimeouts};

use crate::crowd::{Crowd, Habit};
use crate::dice::Dice;
use crate::rivals::{Plain, Rule};
use crate::world::START;

const SIZES: [u32; 7] = [5, 10, 20, 50, 150, 1_000, 50_000];

/// One class: its players tell at each tick, its server each second.
struct Class {
    viewers: u32,
    habit: Habit,
    crowd: Crowd,
    dice: Dice,
    ticks: u32,
    registry: Registry,
    judge: AlertEvaluator,
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
            judge: AlertEvaluator::default(),
            plain: Plain::default(),
            names: ("srs".into(), "players".into(), StreamKey::parse("live/c1").expect("a good key")),
        }
    }

    /// One tick: notices of stutter, and whether the plain rule is over.
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
        let told = self.crowd.tick(self.viewers, &self.habit, &mut self.dice);
        let view = PlayerView {
            protocol: Some(Protocol::Webrtc),
            viewers: self.viewers,
            exposure: Duration::from_secs_f64(told.exposure),
            stalled: Duration::from_secs_f64(told.stalled),
            stall_starts: told.starts as u32,
            ..PlayerView::default()
        };
        self.registry.observe(Observation { source: players, stream, at, fact: Fact::Players(Box::new(view)) });
        self.registry.tick(at);
        self.ticks += 1;
        let notices = self.judge.evaluate(at, &Objectives::default(), &self.registry, &Environment::default());
        (notices, self.plain.tick(told))
    }
}

/// False alarms of the judge and of the plain rule in so many healthy hours.
fn healthy(viewers: u32, habit: Habit, (hours, seed): (u64, u64)) -> (u64, u64) {
    let mut class = Class::new(viewers, habit, seed);
    let (mut ours, mut plains, mut over) = (0, 0, 0_u32);
    for _ in 0..hours * 14_400 {
        let (notices, plain) = class.tick();
        ours +=
            notices.iter().filter(|notice| notice.state == NoticeState::Firing && !notice.renotified).count() as u64;
        // As an alert that clears after five seconds of peace.
        plains += u64::from(plain && over == 0);
        over = if plain { 20 } else { over.saturating_sub(1) };
    }
    (ours, plains)
}

/// Delays in milliseconds of onsets after three healthy minutes, by judge and plain rule; one of over a minute counts
/// as that.
fn delays(viewers: u32, habit: Habit, (ratio, onsets): (f64, u64)) -> (Vec<u64>, Vec<u64>) {
    let (mut ours, mut plains) = (Vec::new(), Vec::new());
    for seed in 1..=onsets {
        let mut class = Class::new(viewers, habit, seed);
        for _ in 0..720 {
            class.tick();
        }
        class.habit.ratio = ratio;
        let (mut told, mut plainly) = (None, None);
        for tick in 1..=240_u64 {
            let (notices, plain) = class.tick();
            let fires = |notice: &Notice| notice.alert == Alert::LiveStutterHigh && notice.state == NoticeState::Firing;
            told = told.or(notices.iter().any(fires).then_some(tick * 250));
            plainly = plainly.or(plain.then_some(tick * 250));
            if told.is_some() && plainly.is_some() {
                break;
            }
        }
        ours.push(told.unwrap_or(60_000));
        plains.push(plainly.unwrap_or(60_000));
    }
    ours.sort_unstable();
    plains.sort_unstable();
    (ours, plains)
}

fn at(delays: &[u64], share: f64) -> f64 {
    delays[((delays.len() as f64 * share) as usize).min(delays.len() - 1)] as f64 / 1e3
}

const HABITS: [(&str, Habit); 3] = [
    ("0.2 s", Habit { ratio: 0.003, length: 0.2, steady: true, together: 1.0 }),
    ("0.5 s", Habit { ratio: 0.003, length: 0.5, steady: false, together: 1.0 }),
    ("2 s", Habit { ratio: 0.003, length: 2.0, steady: false, together: 1.0 }),
];

#[test]
fn healthy_classes_are_left_in_peace() {
    for viewers in [5, 20, 150] {
        let (alarms, plain) = healthy(viewers, HABITS[0].1, (1, 3));
        assert_eq!(alarms, 0, "{viewers} viewers");
        assert!(plain > 0 || viewers > 100, "the plain rule cries wolf: {plain}");
    }
}

#[test]
fn faults_are_told_in_time() {
    for (viewers, within) in [(150, 1.25), (50, 5.0), (20, 10.0), (10, 15.0)] {
        let (ours, _) = delays(viewers, HABITS[0].1, (0.04, 25));
        assert!(at(&ours, 0.95) <= within, "{viewers} viewers: {ours:?}");
    }
}

#[test]
#[ignore = "the table of docs/performance.md, minutes: cargo test -p liveqos-core --release --test corpus -- --ignored --nocapture table"]
fn table_of_onsets() {
    println!("viewers  stalls  onset  judge: within 1 s, 5 s, 10 s, 15 s, 60 s; median, p99   plain: median, p99");
    for viewers in SIZES {
        for (name, habit) in HABITS {
            for ratio in [0.04, 0.02] {
                let onsets = if viewers > 10_000 { 50 } else { 500 };
                let (ours, plain) = delays(viewers, habit, (ratio, onsets));
                let within = [1_000, 5_000, 10_000, 15_000, 59_000]
                    .map(|bar| ours.partition_point(|delay| *delay <= bar) as f64 / ours.len() as f64 * 100.0);
                println!(
                    "{viewers:>7}  {name:>6}  {:>4} %  {:>5.1} {:>5.1} {:>5.1} {:>5.1} {:>5.1}; {:>5.2} {:>5.2}   {:>5.2} {:>5.2}",
                    ratio * 100.0,
                    within[0],
                    within[1],
                    within[2],
                    within[3],
                    within[4],
                    at(&ours, 0.5),
                    at(&ours, 0.99),
                    at(&plain, 0.5),
                    at(&plain, 0.99),
                );
            }
        }
    }
}

#[test]
#[ignore = "the table of docs/performance.md, minutes: cargo test -p liveqos-core --release --test corpus -- --ignored --nocapture table"]
fn table_of_false_alarms() {
    let hours: u64 = 1_000;
    println!("viewers  stalls  class-hours  false alarms: judge, plain rule");
    let (mut all, mut alarms) = (0, 0);
    for viewers in SIZES {
        for (name, habit) in HABITS {
            let hours = match viewers {
                50_000 => hours / 100,
                1_000 => hours / 4,
                _ => hours * 2 / 3,
            };
            let (ours, plain) = healthy(viewers, habit, (hours, 11));
            println!("{viewers:>7}  {name:>6}  {hours:>11}  {ours} {plain}");
            (all, alarms) = (all + hours, alarms + ours);
        }
    }
    println!("{alarms} false alarms in {all} class-hours");
    assert!(alarms * 1_000 <= all, "more than one in a thousand class-hours");
}
