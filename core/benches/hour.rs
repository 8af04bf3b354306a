//! A replayed hour of 500 classes and 10,000 viewers through the whole pipe, beside a reference in the same run that
//! keeps nothing but the sums. Prints a table; the ratios are what counts, the seconds are those of this machine.
//!
//! `cargo bench -p liveqos-core --bench hour`, or to see whether it runs at all `cargo bench -p liveqos-core
//! --bench hour -- --test`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads its settings from the environment; the rules it measures do not"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use liveqos_core::base::LatencyHistogram;
use liveqos_core::model::{
    Descriptor, Environment, Fact, Name, Objectives, Observation, PathView, PlayerView, Protocol, ServerView,
    SourceName, StreamKey, TICK, Timestamp, Total,
};
use liveqos_core::pipeline::Pipeline;
use liveqos_core::session::{Registry, SessionTimeouts};

#[path = "support/cpu.rs"]
mod cpu;

mod counted {
    //! The system's allocator, counted.

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    pub(crate) static LIVE: AtomicUsize = AtomicUsize::new(0);
    pub(crate) static PEAK: AtomicUsize = AtomicUsize::new(0);
    pub(crate) static CALLS: AtomicUsize = AtomicUsize::new(0);

    pub(crate) struct Counted;

    #[expect(
        unsafe_code,
        reason = "only a global allocator sees every byte; each call goes on to the system's unchanged"
    )]
    // SAFETY: every method hands its arguments on to `System` as they are and returns what that returns.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
            PEAK.fetch_max(live, Relaxed);
            CALLS.fetch_add(1, Relaxed);
            // SAFETY: the caller's promise on `layout` is the one that `System` asks for.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            LIVE.fetch_sub(layout.size(), Relaxed);
            // SAFETY: `at` came from `alloc` above with this `layout`, hence from `System`.
            unsafe { System.dealloc(at, layout) }
        }
    }
}

#[global_allocator]
static ALLOCATOR: counted::Counted = counted::Counted;

/// What is replayed.
#[derive(Clone, Copy)]
struct Load {
    sessions: u32,
    viewers_each: u32,
    seconds: u64,
}

/// How the viewers are known.
#[derive(Clone, Copy, PartialEq)]
enum Reporter {
    /// The kernel, for the TCP connections of each class at each tick.
    Kernel,
    /// The players of each class at each tick.
    Players,
}

/// What was measured of one contender.
struct Measured {
    name: &'static str,
    observations: u64,
    samples: u64,
    spent: Duration,
    live_bytes: usize,
    peak_bytes: usize,
    allocations: usize,
}

trait Contender {
    fn observe(&mut self, observation: Observation);
    /// Samples that the tick brought.
    fn tick(&mut self, now: Timestamp) -> u64;
}

struct Whole(Pipeline, Environment);

impl Contender for Whole {
    fn observe(&mut self, observation: Observation) {
        self.0.observe(observation);
    }

    fn tick(&mut self, now: Timestamp) -> u64 {
        black_box(self.0.tick(now, &self.1)).batch.samples.len() as u64
    }
}

struct RegistryAlone(Registry);

impl Contender for RegistryAlone {
    fn observe(&mut self, observation: Observation) {
        self.0.observe(observation);
    }

    fn tick(&mut self, now: Timestamp) -> u64 {
        black_box(self.0.tick(now)).samples.len() as u64
    }
}

/// The least that any solution does: a table by stream and nine sums a class, no identity, no judgement, no trace.
#[derive(Default)]
struct Sums(HashMap<StreamKey, [u64; 9]>);

impl Contender for Sums {
    fn observe(&mut self, observation: Observation) {
        let sums = self.0.entry(observation.stream).or_default();
        match observation.fact {
            Fact::Server(view) => {
                sums[0] = view.ingest_bytes.map_or(0, |total| total.value);
                sums[1] = view.ingest_frames.map_or(0, |total| total.value);
                sums[2] = view.viewers.iter().flatten().map(|(_, count)| u64::from(*count)).sum();
            }
            Fact::Path(view) => {
                sums[3] += view.segments_sent.unwrap_or(0);
                sums[4] += view.segments_lost.unwrap_or(0);
                sums[5] = sums[5].max(view.latencies.max_millis().unwrap_or(0));
            }
            Fact::Players(view) => {
                sums[6] += view.exposure.as_nanos() as u64;
                sums[7] += view.stalled.as_nanos() as u64;
                sums[8] += view.frames.unwrap_or(0);
                sums[5] = sums[5].max(view.latencies.and_then(|latencies| latencies.max_millis()).unwrap_or(0));
            }
            Fact::Described(_) | Fact::Gone => {}
        }
    }

    fn tick(&mut self, now: Timestamp) -> u64 {
        let cut = now.nanos().is_multiple_of(5_000_000_000);
        if cut {
            black_box(self.0.values().copied().collect::<Vec<_>>());
        }
        u64::from(cut) * self.0.len() as u64
    }
}

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let load = if smoke {
        Load { sessions: 20, viewers_each: 20, seconds: 20 }
    } else {
        Load { sessions: 500, viewers_each: 20, seconds: seconds() }
    };
    println!(
        "{} classes, {} viewers, {} s replayed; one server view a class and second, one view of the viewers a class and tick",
        load.sessions,
        load.sessions * load.viewers_each,
        load.seconds
    );
    for reporter in [Reporter::Kernel, Reporter::Players] {
        println!("\nviewers reported by {}", if reporter == Reporter::Kernel { "the kernel" } else { "players" });
        println!(
            "{:<14} {:>12} {:>9} {:>8} {:>10} {:>10} {:>9} {:>9} {:>8}",
            "", "observations", "samples", "CPU s", "µs/sample", "M obs/s", "B/viewer", "peak", "alloc/obs"
        );
        let patience = SessionTimeouts::default;
        let sums = measure("sums alone", load, reporter, Sums::default);
        let registry = measure("registry", load, reporter, || RegistryAlone(Registry::new(patience(), 1_000)));
        let pipe = measure("whole pipe", load, reporter, || {
            let pipe = Pipeline::new("edge-7", Objectives::default(), patience(), 1_000);
            Whole(pipe, Environment::default())
        });
        for measured in [&sums, &registry, &pipe] {
            measured.print(load);
        }
        println!(
            "whole pipe beside sums alone: {:.1} times the CPU; {:.3} % of one core in real time",
            pipe.spent.as_secs_f64() / sums.spent.as_secs_f64(),
            pipe.spent.as_secs_f64() / load.seconds as f64 * 100.0
        );
        assert_eq!(pipe.samples, registry.samples);
        let windows = load.seconds / 5 - 1;
        assert_eq!(pipe.samples, windows * u64::from(load.sessions), "every class in every window");
    }
}

/// How long is replayed: `LIVEQOS_BENCH_SECONDS`, else the hour.
fn seconds() -> u64 {
    std::env::var("LIVEQOS_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_600)
}

/// Replays the load through a contender. Observations are made outside the measured time; their memory is theirs as
/// long as they live.
fn measure<C: Contender>(name: &'static str, load: Load, reporter: Reporter, contender: impl Fn() -> C) -> Measured {
    use std::sync::atomic::Ordering::Relaxed;
    let classes: Vec<StreamKey> = (0..load.sessions)
        .map(|number| StreamKey::parse(&format!("live/class-{number:05}")).expect("a good key"))
        .collect();
    let sources = Sources { server: "srs".into(), viewers: "viewers".into() };
    let before = counted::LIVE.load(Relaxed);
    let mut contender = contender();
    let mut measured = Measured {
        name,
        observations: 0,
        samples: 0,
        spent: Duration::ZERO,
        live_bytes: 0,
        peak_bytes: 0,
        allocations: 0,
    };
    for tick in 0..load.seconds * 4 {
        let now = Timestamp::from_secs(1_700_000_040) + TICK * tick as u32;
        let observations: Vec<Observation> = (0..)
            .zip(&classes)
            .flat_map(|(number, class)| {
                observations(&sources, class, (number, tick), (now, load.viewers_each, reporter))
            })
            .collect();
        measured.observations += observations.len() as u64;
        let words_bytes = counted::LIVE.load(Relaxed);
        counted::PEAK.store(words_bytes, Relaxed);
        let calls = counted::CALLS.load(Relaxed);
        let begun = cpu::spent();
        for observation in observations {
            contender.observe(observation);
        }
        measured.samples += contender.tick(now);
        measured.spent += cpu::spent().saturating_sub(begun);
        measured.allocations += counted::CALLS.load(Relaxed) - calls;
        let peak = counted::PEAK.load(Relaxed);
        measured.peak_bytes = measured.peak_bytes.max(peak - before);
    }
    measured.live_bytes = counted::LIVE.load(Relaxed) - before;
    measured
}

struct Sources {
    server: SourceName,
    viewers: SourceName,
}

/// Observations of one class at one tick; classes are polled in turn, a quarter of them at each tick.
fn observations(
    sources: &Sources,
    class: &StreamKey,
    (number, tick): (u64, u64),
    (now, viewers, reporter): (Timestamp, u32, Reporter),
) -> Vec<Observation> {
    let observed =
        |source: &SourceName, fact| Observation { source: source.clone(), stream: class.clone(), at: now, fact };
    let mut out = Vec::with_capacity(3);
    if tick == 0 {
        let descriptor = Descriptor {
            session_id: Name::new(class.as_str().trim_start_matches("live/")).ok(),
            course_id: Name::new(&format!("course-{}", number % 40)).ok(),
            ..Descriptor::default()
        };
        out.push(observed(&sources.server, Fact::Described(Box::new(descriptor))));
    }
    if tick == 0 || (number + tick).is_multiple_of(4) {
        out.push(observed(&sources.server, server(number, tick, viewers, reporter)));
    }
    let mut latencies = LatencyHistogram::default();
    for viewer in 0..u64::from(viewers) {
        latencies.record(Duration::from_millis(20 + (number * 7 + viewer * 13 + tick) % 90));
    }
    let chance = number + tick;
    let fact = match reporter {
        Reporter::Kernel => kernel(chance, viewers, latencies),
        Reporter::Players => players(chance, viewers, latencies),
    };
    out.push(observed(&sources.viewers, fact));
    out
}

fn server(number: u64, tick: u64, viewers: u32, reporter: Reporter) -> Fact {
    let total = |each: u64| Some(Total { base: number, value: tick * each });
    let protocol = if reporter == Reporter::Kernel { Protocol::HttpFlv } else { Protocol::Webrtc };
    Fact::Server(Box::new(ServerView {
        publishing: Some(true),
        ingest_protocol: Some(Protocol::Rtmp),
        ingest_bytes: total(62_500),
        ingest_frames: total(6),
        egress_bytes: total(62_500 * u64::from(viewers)),
        declared_fps: Some(25.0),
        viewers: Some(vec![(protocol, viewers)]),
        ..ServerView::default()
    }))
}

fn kernel(chance: u64, viewers: u32, latencies: LatencyHistogram) -> Fact {
    Fact::Path(Box::new(PathView {
        protocol: Protocol::HttpFlv,
        viewers,
        latencies,
        segments_sent: Some(u64::from(viewers) * 45),
        segments_lost: Some(u64::from(chance.is_multiple_of(3))),
        rtt: None,
        backlog_bytes: 0,
        publisher_rtt: Some(Duration::from_millis(12)),
    }))
}

fn players(chance: u64, viewers: u32, latencies: LatencyHistogram) -> Fact {
    let frozen = chance.is_multiple_of(20);
    let stalled = if frozen { Duration::from_millis(200) } else { Duration::ZERO };
    Fact::Players(Box::new(PlayerView {
        protocol: Some(Protocol::Webrtc),
        viewers,
        exposure: TICK * viewers,
        stalled,
        stall_starts: u32::from(frozen),
        frames: Some(u64::from(viewers) * 6),
        bytes: Some(u64::from(viewers) * 62_500),
        packets_expected: Some(u64::from(viewers) * 60),
        packets_lost: Some(u64::from(chance.is_multiple_of(3))),
        latencies: Some(latencies),
        ..PlayerView::default()
    }))
}

impl Measured {
    fn print(&self, load: Load) {
        let viewers = (load.sessions * load.viewers_each) as usize;
        println!(
            "{:<14} {:>12} {:>9} {:>8.2} {:>10.2} {:>10.2} {:>9} {:>9} {:>8.2}",
            self.name,
            self.observations,
            self.samples,
            self.spent.as_secs_f64(),
            self.spent.as_secs_f64() * 1e6 / self.samples.max(1) as f64,
            self.observations as f64 / self.spent.as_secs_f64() / 1e6,
            self.live_bytes / viewers,
            self.peak_bytes / viewers,
            self.allocations as f64 / self.observations as f64,
        );
    }
}
