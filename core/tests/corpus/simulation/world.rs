//! A node with classes as its sources report it: servers each second, the kernel each tick, players each second. Faults
//! are set from outside; nothing here knows how alerts are evaluated.

use std::time::Duration;

use liveqos_core::base::LatencyHistogram;
use liveqos_core::model::{
    Descriptor, Environment, Fact, Group, GroupView, Name, NodeLoad, Notice, Objectives, Observation, PathReport,
    PathView, PlayerView, Protocol, Sample, ServerView, Share, StreamKey, TICK, Timestamp, Total,
};
use liveqos_core::pipeline::Pipeline;
use liveqos_core::recording::{Event, line};
use liveqos_core::session::SessionTimeouts;

use super::crowd::{Crowd, Delta, Habit};
use super::dice::Dice;

pub(crate) const START: Timestamp = Timestamp::from_secs(1_700_000_040);

/// Viewers of one network with one player.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) network: u64,
    pub(crate) player: &'static str,
    pub(crate) viewers: u32,
    /// Added to the baseline of the class: stutter ratio, loss ratio and milliseconds of latency.
    pub(crate) stutter: f64,
    pub(crate) loss: f64,
    pub(crate) late: f64,
    crowd: Crowd,
}

/// One class.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) cells: Vec<Cell>,
    pub(crate) habit: Habit,
    /// Whether players report their groups.
    pub(crate) reports_groups: bool,
    /// The publisher: bits and frames per second, how uneven, whether it is there.
    pub(crate) bits: f64,
    pub(crate) frames: f64,
    pub(crate) uneven: f64,
    pub(crate) publishing: bool,
    /// Whether its sources report at all.
    pub(crate) reports: bool,
    sent: (f64, f64),
    /// What its totals count from.
    base: u64,
    deltas: Vec<Delta>,
    dice: Dice,
}

/// The node.
pub(crate) struct World {
    pub(crate) pipe: Pipeline,
    pub(crate) classes: Vec<Class>,
    pub(crate) load: [f64; 3],
    /// Loss ratio and round trip in milliseconds to the origin, where a probe measures.
    pub(crate) path: Option<(f64, f64)>,
    pub(crate) environment: Environment,
    pub(crate) notices: Vec<Notice>,
    pub(crate) samples: Vec<Sample>,
    /// All observations and ticks as a recording, where one is kept.
    pub(crate) tape: Option<Vec<Vec<u8>>>,
    pub(crate) ticks: u64,
    dice: Dice,
}

impl Class {
    /// A class of `viewers` over some networks, each with its players.
    pub(crate) fn new(number: usize, viewers: u32, protocol: Protocol, dice: &mut Dice) -> Self {
        let networks = (viewers / 4).clamp(2, 20);
        let mut cells: Vec<Cell> = Vec::new();
        for viewer in 0..viewers {
            let network = 1_000 + u64::from(viewer % networks);
            let player = if dice.roll() < 0.6 { "hls.js 1.7" } else { "app 5.2" };
            match cells.iter_mut().find(|cell| cell.network == network && cell.player == player) {
                Some(cell) => cell.viewers += 1,
                None => cells.push(Cell {
                    network,
                    player,
                    viewers: 1,
                    stutter: 0.0,
                    loss: 0.0,
                    late: 0.0,
                    crowd: Crowd::default(),
                }),
            }
        }
        let length = [0.2, 0.4, 0.8][dice.pick(3)];
        let habit = Habit { ratio: 0.001 + 0.004 * dice.roll(), length, steady: false, together: 1.0 };
        Self {
            name: format!("live/c{number}"),
            protocol,
            cells,
            habit,
            reports_groups: true,
            bits: 1.5e6 + 1.5e6 * dice.roll(),
            frames: 25.0,
            uneven: 0.08,
            publishing: true,
            reports: true,
            sent: (0.0, 0.0),
            base: 1,
            deltas: Vec::new(),
            dice: Dice::new((dice.roll() * 1e15) as u64),
        }
    }

    pub(crate) fn viewers(&self) -> u32 {
        self.cells.iter().map(|cell| cell.viewers).sum()
    }

    /// Its server restarts: its totals begin at zero.
    pub(crate) fn restart(&mut self) {
        self.base += 1;
        self.sent = (0.0, 0.0);
    }

    /// Its viewers become this many times as many at once.
    pub(crate) fn join(&mut self, times: u32) {
        self.cells.iter_mut().for_each(|cell| cell.viewers *= times);
    }

    fn observations(&mut self, now: Timestamp, tick: u64, out: &mut Vec<Observation>) {
        let stream = StreamKey::parse(&self.name).expect("a good key");
        let mut put = |source: &str, fact| {
            out.push(Observation { source: source.into(), stream: stream.clone(), at: now, fact });
        };
        if tick == 0 {
            let session_id = Name::new(&self.name[5..]).ok();
            put("srs", Fact::Described(Box::new(Descriptor { session_id, ..Descriptor::default() })));
        }
        let second = tick.is_multiple_of(4);
        if second {
            put("srs", Fact::Server(Box::new(self.server_view())));
        }
        self.watch();
        if self.protocol == Protocol::HttpFlv {
            put("kernel", Fact::Path(Box::new(self.path_view())));
        }
        if second {
            put("players", Fact::Players(Box::new(self.player_view())));
        }
    }

    fn server_view(&mut self) -> ServerView {
        let sends = f64::from(u8::from(self.publishing));
        let gust = (1.0 + self.uneven * self.dice.normal()).max(0.02) * sends;
        self.sent.0 += self.bits / 8.0 * gust;
        self.sent.1 +=
            self.frames * (1.0 + 0.6 * (gust - 1.0).clamp(-1.0, 0.7) * f64::from(u8::from(self.uneven > 0.2))) * sends;
        let base = self.base;
        let total = |value: f64| Some(Total { base, value: value as u64 });
        ServerView {
            publishing: Some(self.publishing),
            ingest_protocol: Some(Protocol::Rtmp),
            ingest_bytes: total(self.sent.0),
            ingest_frames: total(self.sent.1),
            declared_fps: Some(25.0),
            viewers: Some(vec![(self.protocol, self.viewers())]),
            ..ServerView::default()
        }
    }

    /// One tick of every cell.
    fn watch(&mut self) {
        self.deltas.resize(self.cells.len(), Delta::default());
        for (cell, delta) in self.cells.iter_mut().zip(&mut self.deltas) {
            let habit = Habit { ratio: (self.habit.ratio + cell.stutter).min(0.9), ..self.habit };
            let more = cell.crowd.tick(cell.viewers, &habit, &mut self.dice);
            delta.exposure += more.exposure;
            delta.stalled += more.stalled;
            delta.starts += more.starts;
        }
    }

    /// What players report for the last second.
    fn player_view(&mut self) -> PlayerView {
        let rtc = self.protocol == Protocol::Webrtc;
        let mut view = PlayerView {
            protocol: Some(self.protocol),
            viewers: self.viewers(),
            packets_expected: rtc.then_some(0),
            packets_lost: rtc.then_some(0),
            latencies: rtc.then(|| self.latencies()),
            ..PlayerView::default()
        };
        let deltas = std::mem::take(&mut self.deltas);
        for (cell, delta) in self.cells.iter().zip(deltas) {
            let (exposure, stalled) = (Duration::from_secs_f64(delta.exposure), Duration::from_secs_f64(delta.stalled));
            view.exposure += exposure;
            view.stalled += stalled;
            view.stall_starts += delta.starts as u32;
            if let (Some(expected), Some(lost)) = (&mut view.packets_expected, &mut view.packets_lost) {
                let packets = u64::from(cell.viewers) * 220;
                *expected += packets;
                *lost += self.dice.poisson(packets as f64 * (0.0008 + cell.loss));
            }
            if self.reports_groups {
                let stall_starts = delta.starts as u32;
                for group in [Group::Network(cell.network << 32), Group::Player(cell.player.into())] {
                    match view.groups.iter_mut().find(|known| known.group == group) {
                        Some(known) => {
                            known.exposure += exposure;
                            known.stalled += stalled;
                            known.stall_starts += stall_starts;
                        }
                        None => view.groups.push(GroupView { group, groups: 1, exposure, stalled, stall_starts }),
                    }
                }
            }
        }
        view
    }

    /// What the kernel reports for this tick.
    fn path_view(&mut self) -> PathView {
        let (mut sent, mut lost) = (0, 0);
        for cell in &self.cells {
            let segments = u64::from(cell.viewers) * 50;
            sent += segments;
            lost += self.dice.poisson(segments as f64 * (0.0008 + cell.loss));
        }
        PathView {
            rtt: None,
            protocol: self.protocol,
            viewers: self.viewers(),
            latencies: self.latencies(),
            segments_sent: Some(sent),
            segments_lost: Some(lost.min(sent)),
            backlog_bytes: self
                .cells
                .iter()
                .map(|cell| (cell.late * self.bits / 8e3) as u64 * u64::from(cell.viewers))
                .sum(),
            publisher_rtt: Some(Duration::from_millis(20)),
        }
    }

    /// Up to forty of its viewers, drawn by cell.
    fn latencies(&mut self) -> LatencyHistogram {
        let mut latencies = LatencyHistogram::default();
        let every = (self.viewers() / 40).max(1);
        for cell in &self.cells {
            for _ in 0..cell.viewers.div_ceil(every) {
                let millis = 45.0 * (0.4 * self.dice.normal()).exp() + cell.late * (0.6 + 0.8 * self.dice.roll());
                latencies.record(Duration::from_millis(millis as u64));
            }
        }
        latencies
    }
}

impl World {
    pub(crate) fn new(classes: Vec<Class>, seed: u64) -> Self {
        Self {
            pipe: Pipeline::new("edge-7", Objectives::default(), SessionTimeouts::default(), 1_000),
            classes,
            load: [0.35, 0.4, 0.3],
            path: None,
            environment: Environment::default(),
            notices: Vec::new(),
            samples: Vec::new(),
            tape: None,
            ticks: 0,
            dice: Dice::new(seed),
        }
    }

    fn record(&mut self, event: impl FnOnce() -> Event) {
        if let Some(tape) = &mut self.tape {
            tape.push(line(&event()).expect("a short event"));
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        START + TICK * self.ticks as u32
    }

    /// Plays on for `seconds`.
    pub(crate) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            let now = self.now();
            let mut out = Vec::new();
            for class in self.classes.iter_mut().filter(|class| class.reports) {
                class.observations(now, self.ticks, &mut out);
            }
            for observation in out {
                self.record(|| Event::observed(&observation));
                self.pipe.observe(observation);
            }
            if self.ticks.is_multiple_of(8) {
                let [cpu, memory, nic] = self.load.map(|load| (load + 0.02 * self.dice.normal()).clamp(0.0, 1.0));
                self.environment.node =
                    NodeLoad { cpu_ratio: Some(cpu), memory_ratio: Some(memory), nic_ratio: Some(nic) };
            }
            if let Some((loss, rtt)) = self.path.filter(|_| self.ticks.is_multiple_of(4)) {
                let lost = self.dice.poisson(100.0 * loss) as f64;
                let rtt = Duration::from_secs_f64(rtt * (1.0 + 0.05 * self.dice.normal()) / 1e3);
                let (out, back) = (Share::of(lost.min(100.0), 100.0), Share::of(0.0, 100.0));
                self.environment.paths =
                    vec![PathReport { peer: "origin-1".into(), at: now, rtt: Some(rtt), out, back, silent: None }];
            }
            let environment = self.environment.clone();
            self.record(|| Event::Environment(Box::new(environment)));
            self.record(|| Event::Tick(now));
            let tick = self.pipe.tick(now, &self.environment);
            self.notices.extend(tick.notices);
            self.samples.extend(tick.batch.samples);
            self.ticks += 1;
        }
    }
}
