//! The engine: one thread that owns the pipe, folds what the intakes bring, and ticks every 250 ms. Decides nothing of
//! the rules; refuses to be stopped by a source, a sink or a reader: it only ever takes from bounded queues and never
//! waits for anyone.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{
    Checkpoint, Descriptor, Entry, Environment, Name, NodeLoad, Objectives, Observation, StreamKey, TICK, Timestamp,
};
use liveqos_core::pipeline::{Pipeline, Tick};
use liveqos_core::recording::{Event, Settings};
use liveqos_core::session::{Refused, SessionTimeouts};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::recorder::Recorder;
use super::snapshot::Snapshot;
use crate::intake::kernel::ConnectionWatchlist;
use crate::intake::{SourceState, SourceTable};
use crate::peers::PathTable;
use crate::platform::{SelfMetrics, clock};

/// Batches of observations waiting for the engine; beyond it they are shed and counted by who sends.
pub(crate) const MAX_WAITING: usize = 4_096;

/// Orders waiting for the engine.
pub(crate) const MAX_COMMANDS: usize = 256;

/// Most batches folded between two looks at the clock.
const FOLD_AT_ONCE: usize = 64;

/// What the engine is told by the API and by the operator.
#[derive(Debug)]
pub(crate) enum Command {
    /// The platform announces a class; answers whether there was room.
    Register(Name, Option<StreamKey>, Box<Descriptor>, oneshot::Sender<bool>),
    /// The platform ends a class; answers whether it was known.
    End(Name, oneshot::Sender<bool>),
    /// New settings.
    Set(Box<Objectives>, SessionTimeouts, usize),
    /// Leave everything as it must be found at the next start, and stop.
    Stop(oneshot::Sender<()>),
}

/// Keeps changes; gives what lived before the start, once, where that could not be read then.
pub(crate) type Keep = dyn FnMut(Vec<Entry>) -> Option<Box<Checkpoint>> + Send;

/// Everything the engine reads and writes beside its queues.
pub(crate) struct EngineIo {
    /// What readers see.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Whose connections the kernel intake looks for.
    pub roster: Arc<ArcSwap<ConnectionWatchlist>>,
    /// How the sources do.
    pub sources: Arc<ArcSwap<SourceTable>>,
    /// How the paths to other nodes do.
    pub paths: Arc<PathTable>,
    /// How loaded the node is.
    pub node: Arc<ArcSwap<NodeLoad>>,
    /// Its own counters.
    pub meters: SelfMetrics,
    /// When the last tick was.
    pub last_tick: Arc<ArcSwap<Timestamp>>,
    /// What intakes folded since the last tick.
    pub gather: Box<dyn FnMut(Timestamp) -> Vec<Observation> + Send>,
    /// Where results go.
    pub deliver: Box<dyn FnMut(&Tick) + Send>,
    /// Keeps what must outlive the daemon, together with what was delivered before; `None` where nothing does.
    pub keep: Option<Box<Keep>>,
    /// What that found of before, to go on with at the next tick.
    pub found: Option<Box<Checkpoint>>,
    /// Keeps what the rules hear; `None` where nothing does.
    pub record: Option<Recorder>,
    /// Told after every tick, for the watchdog.
    pub alive: Box<dyn Fn() + Send>,
}

impl EngineIo {
    /// Keeps a word, where a recording is kept.
    fn note(&mut self, word: impl FnOnce() -> Event) {
        if let Some(recorder) = &mut self.record {
            recorder.note(word);
        }
    }
}

/// Starts the engine on a thread of its own, so that nothing else that runs can make a tick late.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(
    pipe: Pipeline,
    around: EngineIo,
    observations: mpsc::Receiver<Vec<Observation>>,
    orders: mpsc::Receiver<Command>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new()
        .name("heart".to_owned())
        .spawn(move || runtime.block_on(run(pipe, around, observations, orders)))
}

/// Runs the engine until it is told to stop.
async fn run(
    mut pipe: Pipeline,
    mut around: EngineIo,
    mut observations: mpsc::Receiver<Vec<Observation>>,
    mut orders: mpsc::Receiver<Command>,
) {
    let mut present = Snapshot::resumed(&pipe);
    around.snapshot.store(Arc::new(present.clone()));
    let mut epoch = clock::Epoch::default();
    let mut waiting = Vec::with_capacity(FOLD_AT_ONCE);
    let mut next = clock::now().floor(TICK) + TICK;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(Instant::now() + next.since(clock::now())) => {
                if epoch.is_new() {
                    set_back(&mut pipe, &mut present, &mut around);
                    next = clock::now().floor(TICK);
                }
                let now = clock::now();
                around.meters.tick_skew.observe(now.since(next).as_secs_f64());
                tick(now, &mut pipe, &mut present, &mut around);
                next = now.floor(TICK) + TICK;
            }
            order = orders.recv() => match order {
                Some(Command::Stop(done)) => {
                    stop(&mut pipe, &mut around);
                    // Who asked may have gone.
                    done.send(()).unwrap_or_default();
                    return;
                }
                Some(order) => obey(order, &mut pipe, &mut around),
                None => return,
            },
            count = observations.recv_many(&mut waiting, FOLD_AT_ONCE) => {
                if count == 0 {
                    return;
                }
                for observation in waiting.drain(..).flatten() {
                    around.note(|| Event::observed(&observation));
                    pipe.observe(observation);
                }
            }
        }
    }
}

fn tick(now: Timestamp, pipe: &mut Pipeline, present: &mut Snapshot, around: &mut EngineIo) {
    for observation in (around.gather)(now) {
        around.note(|| Event::observed(&observation));
        pipe.observe(observation);
    }
    let found = around.found.take();
    if let Some(found) = &found {
        Event::joined(found, now).for_each(|word| around.note(|| word));
    }
    let joined = found.map(|found| pipe.join(*found, now)).unwrap_or_default();
    let surroundings = surroundings(now, around);
    if let Some(recorder) = &mut around.record {
        recorder.tick(now, &surroundings);
    }
    let mut tick = pipe.tick(now, &surroundings);
    tick.entries.splice(0..0, joined);
    let tick = hand_on(tick, around);
    let refused = pipe.registry().refused();
    count_refused(&around.meters, present.refused, refused);
    present.refused = refused;
    let (changed, capacity) = (present.take(&tick), pipe.capacity());
    if changed || capacity != std::mem::replace(&mut present.capacity, capacity) {
        present.fleet = pipe.fleet().clone();
        around.snapshot.store(Arc::new(present.clone()));
    }
    if now.nanos() % ROSTER_EVERY.as_nanos() as u64 <= TICK.as_nanos() as u64 || !tick.batch.opened.is_empty() {
        around.roster.store(Arc::new(ConnectionWatchlist::of(pipe.registry(), now)));
    }
    around.last_tick.store(Arc::new(now));
    (around.alive)();
}

/// Where state is kept, a minute that is open goes on after the restart; else it leaves as it is.
fn stop(pipe: &mut Pipeline, around: &mut EngineIo) {
    let commands = if around.keep.is_some() { Vec::new() } else { pipe.stop() };
    hand_on(Tick { commands, ..Tick::default() }, around);
}

/// To the sinks, and then to what keeps it: the two belong together.
fn hand_on(mut tick: Tick, around: &mut EngineIo) -> Tick {
    (around.deliver)(&tick);
    if let Some(keep) = &mut around.keep {
        let found = keep(std::mem::take(&mut tick.entries));
        around.found = found.or(around.found.take());
    }
    tick
}

/// The clock was set back: what lives is forgotten and found again.
fn set_back(pipe: &mut Pipeline, present: &mut Snapshot, around: &mut EngineIo) {
    tracing::warn!("the clock was set back; live classes are forgotten and open again");
    around.meters.shed(ShedReason::ClockSetBack, present.sessions.len() as u64);
    around.note(|| Event::Forgotten);
    hand_on(pipe.forget(), around);
    *present = Snapshot { fleet: pipe.fleet().clone(), refused: present.refused, ..Snapshot::default() };
    around.snapshot.store(Arc::new(present.clone()));
}

fn surroundings(now: Timestamp, around: &EngineIo) -> Environment {
    let sources = around.sources.load().snapshot(now).into_iter().map(|source| {
        let silent = source.state == SourceState::Down;
        (source.name, silent.then(|| source.last_success.or(source.since).unwrap_or(now)))
    });
    Environment { node: **around.node.load(), sources: sources.collect(), paths: around.paths.reports(now) }
}

/// Does what is ordered. Who asked may have stopped waiting for the answer.
fn obey(order: Command, pipe: &mut Pipeline, around: &mut EngineIo) {
    let now = clock::now();
    match order {
        Command::Register(id, stream, descriptor, answer) => {
            around.note(|| Event::announced(&id, stream.as_ref(), &descriptor, now));
            let room = pipe.registry_mut().register(&id, stream, *descriptor, now);
            answer.send(room).unwrap_or_default();
        }
        Command::End(id, answer) => {
            around.note(|| Event::Ended(id.clone(), now));
            let known = pipe.registry_mut().end(&id, now);
            answer.send(known).unwrap_or_default();
        }
        Command::Set(objectives, patience, max_sessions) => {
            let settings = || Settings { objectives: *objectives, timeouts: patience.clone(), max_sessions };
            around.note(|| Event::Set(Box::new(settings())));
            pipe.set(*objectives, patience, max_sessions);
        }
        Command::Stop(_) => {}
    }
}

fn count_refused(meters: &SelfMetrics, was: Refused, now: Refused) {
    meters.shed(ShedReason::MaxSessions, now.sessions - was.sessions);
    meters.shed(ShedReason::MaxRegistrations, now.registrations - was.registrations);
}

/// How often the roster is made anew.
const ROSTER_EVERY: Duration = Duration::from_secs(1);
