//! The engine's thread: folds observations as they arrive and ticks every 250 ms. It takes only from bounded queues and
//! never waits, so that no source, sink or reader can delay a tick.

use std::sync::Arc;
use std::time::Duration;

use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Checkpoint, Descriptor, Name, Objectives, Observation, StreamKey, TICK, Timestamp};
use liveqos_core::pipeline::{Pipeline, Tick};
use liveqos_core::recording::{Event, Settings};
use liveqos_core::session::{Refused, SessionTimeouts};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::io::EngineIo;
use super::snapshot::Snapshot;
use crate::intake::kernel::ConnectionWatchlist;
use crate::platform::{SelfMetrics, clock};

/// Most batches of observations in the engine's queue; further ones are shed and counted by their sender.
pub(crate) const MAX_WAITING: usize = 4_096;

/// Most commands in the engine's queue.
pub(crate) const MAX_COMMANDS: usize = 256;

/// Most batches folded before the clock is checked again.
const MAX_BATCHES: usize = 64;

/// A command of the API or the operator to the engine.
#[derive(Debug)]
pub(crate) enum Command {
    /// Registers a class that the platform announces; answers whether there was room.
    Register(Name, Option<StreamKey>, Box<Descriptor>, oneshot::Sender<bool>),
    /// Ends a class; answers whether it was known.
    End(Name, oneshot::Sender<bool>),
    /// Applies new settings: objectives, timeouts, most sessions.
    Set(Box<Objectives>, SessionTimeouts, usize),
    /// Leaves everything as the next start must find it, and stops.
    Stop(oneshot::Sender<()>),
}

/// Where commands are sent.
pub(crate) type Commands = mpsc::Sender<Command>;

/// The rules, what readers see of them, and the engine's connections.
struct Engine {
    pipeline: Pipeline,
    snapshot: Snapshot,
    io: EngineIo,
    /// State of an earlier run that was found after the start, to resume at the next tick.
    found: Option<Box<Checkpoint>>,
}

/// Starts the engine on a thread of its own, so that no other work of the daemon can delay a tick.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(
    pipeline: Pipeline,
    io: EngineIo,
    observations: mpsc::Receiver<Vec<Observation>>,
    commands: mpsc::Receiver<Command>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let engine = Engine { snapshot: Snapshot::resumed(&pipeline), pipeline, io, found: None };
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || runtime.block_on(engine.run(observations, commands)))
}

impl Engine {
    /// Runs until a command stops the engine.
    async fn run(mut self, mut observations: mpsc::Receiver<Vec<Observation>>, mut commands: mpsc::Receiver<Command>) {
        self.publish();
        let mut epoch = clock::Epoch::default();
        let mut batches = Vec::with_capacity(MAX_BATCHES);
        let mut due = clock::now().floor(TICK) + TICK;
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(Instant::now() + due.since(clock::now())) => {
                    if epoch.is_new() {
                        self.start_over();
                        due = clock::now().floor(TICK);
                    }
                    let now = clock::now();
                    self.io.meters.tick_skew.observe(now.since(due).as_secs_f64());
                    self.tick(now);
                    due = now.floor(TICK) + TICK;
                }
                command = commands.recv() => match command {
                    Some(Command::Stop(stopped)) => {
                        self.stop();
                        // The sender of the command may be gone.
                        stopped.send(()).unwrap_or_default();
                        return;
                    }
                    Some(command) => self.execute(command),
                    None => return,
                },
                count = observations.recv_many(&mut batches, MAX_BATCHES) => {
                    if count == 0 {
                        return;
                    }
                    for observation in batches.drain(..).flatten() {
                        self.observe(observation);
                    }
                }
            }
        }
    }

    fn observe(&mut self, observation: Observation) {
        self.io.record(|| Event::observed(&observation));
        self.pipeline.observe(observation);
    }

    /// Gathers, runs the rules, delivers and publishes.
    fn tick(&mut self, now: Timestamp) {
        for observation in self.io.gather.gather(now) {
            self.observe(observation);
        }
        let found = self.found.take();
        if let Some(found) = &found {
            Event::joined(found, now).for_each(|event| self.io.record(|| event));
        }
        let joined = found.map(|found| self.pipeline.join(*found, now)).unwrap_or_default();
        let surroundings = self.io.surroundings.read(now);
        if let Some(recorder) = &mut self.io.recorder {
            recorder.tick(now, &surroundings);
        }
        let mut tick = self.pipeline.tick(now, &surroundings);
        tick.entries.splice(0..0, joined);
        let tick = self.deliver(tick);
        let refused = self.pipeline.registry().refused();
        count_refused(&self.io.meters, self.snapshot.refused, refused);
        self.snapshot.refused = refused;
        let (changed, capacity) = (self.snapshot.take(&tick), self.pipeline.capacity());
        if changed || capacity != std::mem::replace(&mut self.snapshot.capacity, capacity) {
            self.snapshot.fleet = self.pipeline.fleet().clone();
            self.publish();
        }
        if now.nanos() % WATCHLIST_INTERVAL.as_nanos() as u64 <= TICK.as_nanos() as u64 || !tick.batch.opened.is_empty()
        {
            let watchlist = ConnectionWatchlist::of(self.pipeline.registry(), now);
            self.io.published.watchlist.store(Arc::new(watchlist));
        }
        self.io.published.last_tick.store(Arc::new(now));
        (self.io.on_tick)();
    }

    fn publish(&self) {
        self.io.published.snapshot.store(Arc::new(self.snapshot.clone()));
    }

    /// Delivers a tick to the sinks and then stores its state: the stored state includes what was delivered.
    fn deliver(&mut self, mut tick: Tick) -> Tick {
        self.io.deliver.deliver(&tick);
        if let Some(persist) = &mut self.io.persist {
            let found = persist.persist(std::mem::take(&mut tick.entries));
            self.found = found.or(self.found.take());
        }
        tick
    }

    /// Delivers open segments. Where state is stored, they stay open and are continued after the restart instead.
    fn stop(&mut self) {
        let commands = if self.io.persist.is_some() { Vec::new() } else { self.pipeline.stop() };
        self.deliver(Tick { commands, ..Tick::default() });
    }

    /// Forgets live classes, because the clock was set back; those that still live open again.
    fn start_over(&mut self) {
        tracing::warn!("the clock was set back; live classes are reset and reopened");
        self.io.meters.shed(ShedReason::ClockSetBack, self.snapshot.sessions.len() as u64);
        self.io.record(|| Event::Forgotten);
        let tick = self.pipeline.forget();
        self.deliver(tick);
        let (fleet, refused) = (self.pipeline.fleet().clone(), self.snapshot.refused);
        self.snapshot = Snapshot { fleet, refused, ..Snapshot::default() };
        self.publish();
    }

    /// Executes a command. Its sender may have stopped waiting for the answer.
    fn execute(&mut self, command: Command) {
        let (now, Self { pipeline, io, .. }) = (clock::now(), self);
        match command {
            Command::Register(id, stream, descriptor, answer) => {
                io.record(|| Event::announced(&id, stream.as_ref(), &descriptor, now));
                let had_room = pipeline.registry_mut().register(&id, stream, *descriptor, now);
                answer.send(had_room).unwrap_or_default();
            }
            Command::End(id, answer) => {
                io.record(|| Event::Ended(id.clone(), now));
                let was_known = pipeline.registry_mut().end(&id, now);
                answer.send(was_known).unwrap_or_default();
            }
            Command::Set(objectives, timeouts, max_sessions) => {
                let settings = || Settings { objectives: *objectives, timeouts: timeouts.clone(), max_sessions };
                io.record(|| Event::Set(Box::new(settings())));
                pipeline.set(*objectives, timeouts, max_sessions);
            }
            Command::Stop(_) => {}
        }
    }
}

fn count_refused(meters: &SelfMetrics, before: Refused, now: Refused) {
    meters.shed(ShedReason::MaxSessions, now.sessions - before.sessions);
    meters.shed(ShedReason::MaxRegistrations, now.registrations - before.registrations);
}

/// How often the connections to look for are collected anew.
const WATCHLIST_INTERVAL: Duration = Duration::from_secs(1);
