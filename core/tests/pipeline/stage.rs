//! Simulated classes: servers are polled each second, players and the kernel report each tick, the pipeline ticks each
//! 250 ms. Nothing here reads a clock; all chance comes from a seed.

use std::time::Duration;

use liveqos_core::base::LatencyHistogram;
use liveqos_core::model::{
    Alert, Descriptor, Environment, Fact, Name, NodeLoad, Notice, NoticeState, Objectives, Observation, PathView,
    PlayerView, Protocol, ServerView, StreamKey, TICK, Timestamp, Total,
};
use liveqos_core::pipeline::{Pipeline, Tick};
use liveqos_core::session::SessionTimeouts;

use crate::random::Random;

/// When every simulation begins: on a wall-clock minute.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_700_000_040);
pub(crate) const SERVER: &str = "srs";
pub(crate) const BEACON: &str = "beacon";
pub(crate) const KERNEL: &str = "kernel";

/// `millis` after the beginning.
pub(crate) fn at(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

pub(crate) fn stream(text: &str) -> StreamKey {
    StreamKey::parse(text).expect("a good key")
}

/// One observation.
pub(crate) fn observed(source: &str, key: &str, at: Timestamp, fact: Fact) -> Observation {
    Observation { source: source.into(), stream: stream(key), at, fact }
}

pub(crate) fn described(id: &str) -> Fact {
    Fact::Described(Box::new(Descriptor { session_id: Some(name(id)), ..Descriptor::default() }))
}

pub(crate) fn latencies(millis: &[u64]) -> LatencyHistogram {
    let mut latencies = LatencyHistogram::default();
    for value in millis {
        latencies.record(Duration::from_millis(*value));
    }
    latencies
}

/// One class as it is now. Every part may be changed between two runs.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) id: &'static str,
    pub(crate) publishing: bool,
    pub(crate) listed: bool,
    pub(crate) polled: bool,
    pub(crate) audience: u32,
    /// The protocol that players report by, where they do.
    pub(crate) players: Option<Protocol>,
    pub(crate) stutter: f64,
    pub(crate) freeze: Duration,
    /// Lost over expected of the players' packets; `None`: they do not count packets.
    pub(crate) loss: Option<f64>,
    pub(crate) latency_millis: Vec<u64>,
    /// Segments sent and lost in each tick, as the kernel reports for HTTP-FLV viewers.
    pub(crate) segments: Option<(u64, u64)>,
    pub(crate) fps: u64,
    pub(crate) declared_fps: Option<f64>,
    random: Random,
    frozen: Vec<Duration>,
    frames: u64,
}

impl Class {
    pub(crate) fn new(id: &'static str) -> Self {
        Self {
            id,
            publishing: true,
            listed: true,
            polled: true,
            audience: 0,
            players: None,
            stutter: 0.0,
            freeze: Duration::from_millis(200),
            loss: None,
            latency_millis: Vec::new(),
            segments: None,
            fps: 25,
            declared_fps: None,
            random: Random::new(1),
            frozen: Vec::new(),
            frames: 0,
        }
    }

    /// Viewers whose players report over WebRTC.
    pub(crate) fn viewers(mut self, count: u32) -> Self {
        self.audience = count;
        self.players = Some(Protocol::Webrtc);
        self
    }

    /// Viewers that only the server counts.
    pub(crate) fn waiting(mut self, count: u32) -> Self {
        self.audience = count;
        self
    }

    pub(crate) fn stutter(mut self, ratio: f64) -> Self {
        self.stutter = ratio;
        self
    }

    pub(crate) fn freeze_millis(mut self, millis: u64) -> Self {
        self.freeze = Duration::from_millis(millis);
        self
    }

    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.random = Random::new(seed);
        self
    }

    fn key(&self) -> String {
        format!("live/{}", self.id)
    }

    /// Observations of it at `now`: by the server on whole seconds, by kernel and players at each tick.
    fn observations(&mut self, now: Timestamp, begun: bool) -> Vec<Observation> {
        let mut out = Vec::new();
        if !begun {
            out.push(observed(SERVER, &self.key(), now, described(self.id)));
        }
        self.frames += u64::from(self.publishing) * self.fps;
        if now.nanos().is_multiple_of(1_000_000_000) && self.polled {
            let fact = if self.listed { self.server() } else { Fact::Gone };
            out.push(observed(SERVER, &self.key(), now, fact));
        }
        if let Some((sent, lost)) = self.segments {
            let view = PathView {
                protocol: Protocol::HttpFlv,
                viewers: self.audience,
                latencies: LatencyHistogram::default(),
                segments_sent: Some(sent),
                segments_lost: Some(lost),
                rtt: None,
                backlog_bytes: 0,
                publisher_rtt: None,
            };
            out.push(observed(KERNEL, &self.key(), now, Fact::Path(Box::new(view))));
        }
        if let Some(protocol) = self.players {
            let view = self.player_view(protocol);
            out.push(observed(BEACON, &self.key(), now, Fact::Players(Box::new(view))));
        }
        out
    }

    /// The server's view; its totals are four to the second and frame, for one tick is a quarter of a second.
    fn server(&self) -> Fact {
        Fact::Server(Box::new(ServerView {
            publishing: Some(self.publishing),
            ingest_protocol: Some(Protocol::Rtmp),
            ingest_bytes: Some(Total { base: 1, value: self.frames * 1_250 }),
            ingest_frames: Some(Total { base: 1, value: self.frames / 4 }),
            declared_fps: self.declared_fps,
            viewers: Some(vec![(Protocol::Webrtc, self.audience)]),
            ..ServerView::default()
        }))
    }

    /// One tick of each viewer: playing or frozen, freezes beginning by chance at the wanted ratio.
    fn player_view(&mut self, protocol: Protocol) -> PlayerView {
        self.frozen.resize(self.audience as usize, Duration::ZERO);
        let mut view = PlayerView {
            protocol: Some(protocol),
            viewers: self.audience,
            exposure: TICK * self.audience,
            ..PlayerView::default()
        };
        let starts = self.stutter / (1.0 - self.stutter) * TICK.as_secs_f64() / self.freeze.as_secs_f64();
        for left in &mut self.frozen {
            if left.is_zero() && self.random.roll() < starts {
                let rest = TICK.mul_f64(self.random.roll());
                view.stalled += self.freeze.min(rest);
                view.stall_starts += 1;
                *left = self.freeze.saturating_sub(rest);
            } else {
                view.stalled += (*left).min(TICK);
                *left = left.saturating_sub(TICK);
            }
        }
        if let Some(loss) = self.loss {
            let expected = u64::from(self.audience) * 60;
            let lost = (0..expected).filter(|_| self.random.roll() < loss).count() as u64;
            (view.packets_expected, view.packets_lost) = (Some(expected), Some(lost));
        }
        view.latencies = (!self.latency_millis.is_empty()).then(|| latencies(&self.latency_millis));
        view
    }
}

/// The pipeline, its environment and all that it has put out so far.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) pipeline: Pipeline,
    pub(crate) environment: Environment,
    pub(crate) classes: Vec<Class>,
    pub(crate) output: Tick,
    millis: u64,
}

impl Stage {
    pub(crate) fn of(classes: impl IntoIterator<Item = Class>) -> Self {
        Self {
            pipeline: Pipeline::new("edge-7", Objectives::default(), SessionTimeouts::default(), 1_000),
            environment: Environment::default(),
            classes: classes.into_iter().collect(),
            output: Tick::default(),
            millis: 0,
        }
    }

    pub(crate) fn class(&mut self) -> &mut Class {
        &mut self.classes[0]
    }

    pub(crate) fn load(&mut self, cpu_ratio: Option<f64>) {
        self.environment.node = NodeLoad { cpu_ratio, ..NodeLoad::default() };
    }

    pub(crate) fn now(&self) -> Timestamp {
        at(self.millis)
    }

    /// Plays on for `seconds`; the last instant belongs to the next run.
    pub(crate) fn run(&mut self, seconds: u64) {
        let end = self.millis + seconds * 1_000;
        while self.millis < end {
            let now = self.now();
            for class in &mut self.classes {
                for observation in class.observations(now, self.millis > 0) {
                    self.pipeline.observe(observation);
                }
            }
            self.tick();
        }
    }

    /// One tick without an observation.
    pub(crate) fn tick(&mut self) {
        let tick = self.pipeline.tick(self.now(), &self.environment);
        self.output.batch.opened.extend(tick.batch.opened);
        self.output.batch.samples.extend(tick.batch.samples);
        self.output.batch.closed.extend(tick.batch.closed);
        self.output.notices.extend(tick.notices);
        self.output.commands.extend(tick.commands);
        self.millis += 250;
    }

    pub(crate) fn notices(&self, alert: Alert) -> Vec<&Notice> {
        let breach = |notice: &&Notice| notice.alert == alert && !notice.renotified && notice.forecast.is_none();
        self.output.notices.iter().filter(breach).collect()
    }

    /// The states of one alert in order, renotifications and forecasts left out.
    pub(crate) fn states(&self, alert: Alert) -> Vec<NoticeState> {
        self.notices(alert).iter().map(|notice| notice.state).collect()
    }
}
