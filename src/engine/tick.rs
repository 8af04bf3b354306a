//! The heart: one thread that owns the pipe, folds what the intakes bring, and beats every 250 ms. Decides nothing of the rules;
//! refuses to be stopped by a source, a sink or a reader: it only ever takes from bounded queues and never waits for anyone.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use liveqos_core::model::{
    BEAT, Checkpoint, Descriptor, Entry, Name, NodeLoad, Objectives, Observation, StreamKey, Surroundings, Timestamp,
};
use liveqos_core::pipeline::{Beat, Pipe};
use liveqos_core::recording::{Settings, Word};
use liveqos_core::session::{Patience, Refused};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::recorder::Recorder;
use super::snapshot::Snapshot;
use crate::intake::kernel::Roster;
use crate::intake::{SourceState, SourceTable};
use crate::peers::PathTable;
use crate::platform::{Meters, clock};

/// Batches of observations waiting for the heart; beyond it they are shed and counted by who sends.
pub(crate) const MAX_WAITING: usize = 4_096;

/// Orders waiting for the heart.
pub(crate) const MAX_ORDERS: usize = 256;

/// Most batches folded between two looks at the clock.
const FOLD_AT_ONCE: usize = 64;

/// What the heart is told by the API and by the operator.
#[derive(Debug)]
pub(crate) enum Order {
    /// The platform announces a class; answers whether there was room.
    Register(Name, Option<StreamKey>, Box<Descriptor>, oneshot::Sender<bool>),
    /// The platform ends a class; answers whether it was known.
    End(Name, oneshot::Sender<bool>),
    /// New settings.
    Set(Box<Objectives>, Patience, usize),
    /// Leave everything as it must be found at the next start, and stop.
    Stop(oneshot::Sender<()>),
}

/// Keeps changes; gives what lived before the start, once, where that could not be read then.
pub(crate) type Keep = dyn FnMut(Vec<Entry>) -> Option<Box<Checkpoint>> + Send;

/// Everything the heart reads and writes beside its queues.
pub(crate) struct Surround {
    /// What readers see.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Whose connections the kernel intake looks for.
    pub roster: Arc<ArcSwap<Roster>>,
    /// How the sources do.
    pub sources: Arc<ArcSwap<SourceTable>>,
    /// How the paths to other nodes do.
    pub paths: Arc<PathTable>,
    /// How loaded the node is.
    pub node: Arc<ArcSwap<NodeLoad>>,
    /// Its own counters.
    pub meters: Meters,
    /// When the last beat was.
    pub last_beat: Arc<ArcSwap<Timestamp>>,
    /// What intakes folded since the last beat.
    pub gather: Box<dyn FnMut(Timestamp) -> Vec<Observation> + Send>,
    /// Where results go.
    pub deliver: Box<dyn FnMut(&Beat) + Send>,
    /// Keeps what must outlive the daemon, together with what was delivered before; `None` where nothing does.
    pub keep: Option<Box<Keep>>,
    /// What that found of before, to go on with at the next beat.
    pub found: Option<Box<Checkpoint>>,
    /// Keeps what the rules hear; `None` where nothing does.
    pub record: Option<Recorder>,
    /// Told after every beat, for the watchdog.
    pub alive: Box<dyn Fn() + Send>,
}

impl Surround {
    /// Keeps a word, where a recording is kept.
    fn note(&mut self, word: impl FnOnce() -> Word) {
        if let Some(recorder) = &mut self.record {
            recorder.note(word);
        }
    }
}

/// Starts the heart on a thread of its own, so that nothing else that runs can make a beat late.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(
    pipe: Pipe,
    around: Surround,
    observations: mpsc::Receiver<Vec<Observation>>,
    orders: mpsc::Receiver<Order>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new()
        .name("heart".to_owned())
        .spawn(move || runtime.block_on(run(pipe, around, observations, orders)))
}

/// Runs the heart until it is told to stop.
async fn run(
    mut pipe: Pipe,
    mut around: Surround,
    mut observations: mpsc::Receiver<Vec<Observation>>,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut present = Snapshot::resumed(&pipe);
    around.snapshot.store(Arc::new(present.clone()));
    let mut epoch = clock::Epoch::default();
    let mut waiting = Vec::with_capacity(FOLD_AT_ONCE);
    let mut next = clock::now().floor(BEAT) + BEAT;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(Instant::now() + next.since(clock::now())) => {
                if epoch.is_new() {
                    set_back(&mut pipe, &mut present, &mut around);
                    next = clock::now().floor(BEAT);
                }
                let now = clock::now();
                around.meters.tick_skew.observe(now.since(next).as_secs_f64());
                beat(now, &mut pipe, &mut present, &mut around);
                next = now.floor(BEAT) + BEAT;
            }
            order = orders.recv() => match order {
                Some(Order::Stop(done)) => {
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
                    around.note(|| Word::observed(&observation));
                    pipe.observe(observation);
                }
            }
        }
    }
}

fn beat(now: Timestamp, pipe: &mut Pipe, present: &mut Snapshot, around: &mut Surround) {
    for observation in (around.gather)(now) {
        around.note(|| Word::observed(&observation));
        pipe.observe(observation);
    }
    let found = around.found.take();
    if let Some(found) = &found {
        Word::joined(found, now).for_each(|word| around.note(|| word));
    }
    let joined = found.map(|found| pipe.join(*found, now)).unwrap_or_default();
    let surroundings = surroundings(now, around);
    if let Some(recorder) = &mut around.record {
        recorder.beat(now, &surroundings);
    }
    let mut beat = pipe.beat(now, &surroundings);
    beat.entries.splice(0..0, joined);
    let beat = hand_on(beat, around);
    let refused = pipe.registry().refused();
    count_refused(&around.meters, present.refused, refused);
    present.refused = refused;
    let (changed, capacity) = (present.take(&beat), pipe.capacity());
    if changed || capacity != std::mem::replace(&mut present.capacity, capacity) {
        present.fleet = pipe.fleet().clone();
        around.snapshot.store(Arc::new(present.clone()));
    }
    if now.nanos() % ROSTER_EVERY.as_nanos() as u64 <= BEAT.as_nanos() as u64 || !beat.batch.opened.is_empty() {
        around.roster.store(Arc::new(Roster::of(pipe.registry(), now)));
    }
    around.last_beat.store(Arc::new(now));
    (around.alive)();
}

/// Where state is kept, a minute that is open goes on after the restart; else it leaves as it is.
fn stop(pipe: &mut Pipe, around: &mut Surround) {
    let commands = if around.keep.is_some() { Vec::new() } else { pipe.stop() };
    hand_on(Beat { commands, ..Beat::default() }, around);
}

/// To the sinks, and then to what keeps it: the two belong together.
fn hand_on(mut beat: Beat, around: &mut Surround) -> Beat {
    (around.deliver)(&beat);
    if let Some(keep) = &mut around.keep {
        let found = keep(std::mem::take(&mut beat.entries));
        around.found = found.or(around.found.take());
    }
    beat
}

/// The clock was set back: what lives is forgotten and found again.
fn set_back(pipe: &mut Pipe, present: &mut Snapshot, around: &mut Surround) {
    tracing::warn!("the clock was set back; live classes are forgotten and open again");
    around.meters.shed("clock_set_back", present.sessions.len() as u64);
    around.note(|| Word::Forgotten);
    hand_on(pipe.forget(), around);
    *present = Snapshot { fleet: pipe.fleet().clone(), refused: present.refused, ..Snapshot::default() };
    around.snapshot.store(Arc::new(present.clone()));
}

fn surroundings(now: Timestamp, around: &Surround) -> Surroundings {
    let sources = around.sources.load().snapshot(now).into_iter().map(|source| {
        let silent = source.state == SourceState::Down;
        (source.name, silent.then(|| source.last_success.or(source.since).unwrap_or(now)))
    });
    Surroundings { node: **around.node.load(), sources: sources.collect(), paths: around.paths.words(now) }
}

/// Does what is ordered. Who asked may have stopped waiting for the answer.
fn obey(order: Order, pipe: &mut Pipe, around: &mut Surround) {
    let now = clock::now();
    match order {
        Order::Register(id, stream, descriptor, answer) => {
            around.note(|| Word::announced(&id, stream.as_ref(), &descriptor, now));
            let room = pipe.registry_mut().register(&id, stream, *descriptor, now);
            answer.send(room).unwrap_or_default();
        }
        Order::End(id, answer) => {
            around.note(|| Word::Ended(id.clone(), now));
            let known = pipe.registry_mut().end(&id, now);
            answer.send(known).unwrap_or_default();
        }
        Order::Set(objectives, patience, max_sessions) => {
            let settings = || Settings { objectives: *objectives, patience: patience.clone(), max_sessions };
            around.note(|| Word::Set(Box::new(settings())));
            pipe.set(*objectives, patience, max_sessions);
        }
        Order::Stop(_) => {}
    }
}

fn count_refused(meters: &Meters, was: Refused, now: Refused) {
    meters.shed("max_sessions", now.sessions - was.sessions);
    meters.shed("max_registrations", now.registrations - was.registrations);
}

/// How often the roster is made anew.
const ROSTER_EVERY: Duration = Duration::from_secs(1);
