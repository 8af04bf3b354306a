//! What a class was, sent to a collector by OTLP 1.11. Decides nothing about classes: it encodes what it is told, keeps
//! it until a collector has taken it, and counts what became of it; refuses to block whoever tells.
//!
//! ```text
//! SpanCommand ─► sampling ┐                                 ┌─► frame ─► payload ─► route ─► transport (grpc | http) ─► collector
//! families ─► metrics ──┴► Record ─┬► Outbox ─► lanes ─► sender ◄── retry (what an answer means) ◄─────────────────────────┘
//!                                  └► the same for each copy
//! ```
//!
//! A record leaves with 1,024 others or after 5 s; class roots, incidents and log events leave 250 ms after they came.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveqos_core::model::Name;
use liveqos_core::trace::SpanCommand;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::failover::Failover;
use super::payload::Payload;
use super::queue::{Backlog, ExportQueue, MemoryQueue, Wakeup};
use super::record::{Record, Signal};
use super::request::Frame;
use super::resource::Resource;
use super::retry::{Verdict, classify};
use super::sampling::{Change, Counts, Holding, Sampling};
use super::sender::{Pace, Progress, Sender};
use super::settings::{Compression, OtlpSettings};
use super::stats::Stats;
use super::transport::{StartError, Transport};
use crate::platform::tls;

/// The running export: for each target a queue, and a task for each signal it gets.
#[derive(Debug)]
pub struct Otlp {
    sampling: Mutex<Sampling>,
    sampled: Arc<Counts>,
    targets: Vec<Target>,
    stop: watch::Sender<Option<Instant>>,
    tasks: Vec<JoinHandle<()>>,
}

/// A place that is sent to.
#[derive(Debug)]
pub struct Target {
    name: Arc<str>,
    outbox: Arc<dyn ExportQueue>,
    bells: [Option<Arc<Wakeup>>; 3],
    stats: Arc<Stats>,
}

/// Opens the queue of the target of this name.
pub(super) type OpenOutbox<'a> = &'a dyn Fn(&str) -> Result<Arc<dyn ExportQueue>, String>;

impl Otlp {
    /// Starts with outboxes in memory. Connects when there is something to send. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] for a bad setting, an unreadable file of certificates, or a client that cannot be built.
    pub fn start(settings: &OtlpSettings, resource: &Resource, sampling: Sampling) -> Result<Self, StartError> {
        let open = |_: &str| Ok(Arc::<MemoryQueue>::default() as Arc<dyn ExportQueue>);
        Self::start_with(settings, resource, sampling, &open, Pace::default())
    }

    /// Starts on outboxes (which may hold records from before), one a target, and at `pace`.
    ///
    /// # Errors
    /// As [`Otlp::start`], or an outbox that cannot be opened.
    pub fn start_with(
        settings: &OtlpSettings,
        resource: &Resource,
        sampling: Sampling,
        open: OpenOutbox<'_>,
        pace: Pace,
    ) -> Result<Self, StartError> {
        settings.check()?;
        tls::install();
        let (stop, stopped) = watch::channel(None);
        let mut targets = Vec::new();
        let mut senders = Vec::new();
        for place in settings.targets() {
            let routes = routes(place, resource)?;
            if routes.is_empty() {
                continue;
            }
            let refuse = |why| StartError::Outbox { target: place.name().to_owned(), why };
            let mut target = Target {
                name: place.name().into(),
                outbox: open(place.name()).map_err(refuse)?,
                bells: Default::default(),
                stats: Arc::default(),
            };
            for (signal, route, compression, timeout) in routes {
                let bell = Arc::<Wakeup>::default();
                target.outbox.hang(signal, Arc::clone(&bell));
                target.bells[signal.index()] = Some(Arc::clone(&bell));
                senders.push(Sender {
                    signal,
                    target: Arc::clone(&target.name),
                    route,
                    compression,
                    timeout,
                    frame: Frame::new(resource),
                    outbox: Arc::clone(&target.outbox),
                    bell,
                    stats: Arc::clone(&target.stats),
                    pace,
                    stop: stopped.clone(),
                    progress: Progress::default(),
                });
            }
            targets.push(target);
        }
        let tasks = senders.into_iter().map(|sender| tokio::spawn(sender.run())).collect();
        Ok(Self { sampled: sampling.counts(), sampling: Mutex::new(sampling), targets, stop, tasks })
    }

    /// Takes spans and log events, of which those leave that are sampled. Never waits: what finds no room pushes the
    /// oldest out, counted by [`Target::dropped`].
    pub fn take(&self, commands: &[SpanCommand]) {
        let records = self.sampling().take(commands, |signal| self.sends(signal));
        self.append(&records);
    }

    /// Classes by what was decided about their traces.
    #[must_use]
    pub fn sampled(&self) -> &Counts {
        &self.sampled
    }

    /// A poisoned lock is used as it is: at worst a class is judged anew.
    fn sampling(&self) -> MutexGuard<'_, Sampling> {
        self.sampling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues metrics that are encoded already ([`crate::metrics::otlp::records`]); call it once an interval.
    pub fn push_metrics(&self, records: &[Record]) {
        self.append(records);
    }

    /// Whether any target gets `signal`.
    #[must_use]
    pub fn sends(&self, signal: Signal) -> bool {
        self.targets.iter().any(|target| target.gets(signal))
    }

    /// Where it sends to.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether what waits outlives the process.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.targets.iter().all(|target| target.outbox.keeps())
    }

    /// What was decided and held since last asked, to outlive the process with what was taken.
    #[must_use]
    pub fn take_changes(&self) -> Vec<Change> {
        self.sampling().take_changes()
    }

    /// Goes on with classes that could not be read when it started; see [`Sampling::join`].
    pub fn join(&self, found: &Holding, lives: impl Fn(&Name) -> bool) {
        self.sampling().join(found, lives);
    }

    /// Hands on what is held of classes that are not judged yet, because the daemon stops and nothing outlives it.
    pub fn release(&self) {
        let held = self.sampling().release_all();
        self.append(&held);
    }

    /// Sends what it can within `deadline` and stops; gives what is left for all targets, in the order of
    /// [`Signal::ALL`].
    pub async fn stop(mut self, deadline: Duration) -> [Backlog; 3] {
        let until = Instant::now() + deadline;
        self.stop.send_replace(Some(until));
        for mut task in self.tasks.drain(..) {
            if timeout_at(until + GRACE, &mut task).await.is_err() {
                task.abort();
            }
        }
        Signal::ALL.map(|signal| {
            let left = self.targets.iter().filter(|target| target.gets(signal)).map(|target| target.backlog(signal));
            left.fold(Backlog::default(), |sum, one| Backlog {
                records: sum.records + one.records,
                items: sum.items + one.items,
                bytes: sum.bytes + one.bytes,
            })
        })
    }

    fn append(&self, records: &[Record]) {
        self.targets.iter().for_each(|target| target.append(records));
    }
}

impl Target {
    /// Its name: [`way::MAIN`], or that of a copy.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it gets `signal`.
    #[must_use]
    pub fn gets(&self, signal: Signal) -> bool {
        self.bells[signal.index()].is_some()
    }

    /// The counters, to keep and read at any time.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// What waits of `signal`.
    #[must_use]
    pub fn backlog(&self, signal: Signal) -> Backlog {
        self.outbox.backlog(signal)
    }

    /// Spans, log records or data points of `signal` that found no room.
    #[must_use]
    pub fn dropped(&self, signal: Signal) -> u64 {
        self.outbox.dropped(signal)
    }

    /// Records of `signal` that were kept and found damaged.
    #[must_use]
    pub fn damaged(&self, signal: Signal) -> u64 {
        self.outbox.damaged(signal)
    }

    fn append(&self, records: &[Record]) {
        // For each signal: nothing came, something came, something urgent came.
        let mut came = [None; 3];
        for record in records.iter().filter(|record| self.gets(record.signal)) {
            let urgent = came[record.signal.index()].get_or_insert(false);
            *urgent |= record.urgent;
            self.outbox.append(record.clone());
        }
        for (bell, urgent) in self.bells.iter().zip(came) {
            if let (Some(bell), Some(urgent)) = (bell, urgent) {
                bell.ring(urgent);
            }
        }
    }
}

/// What one endpoint answered.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The target.
    pub target: String,
    /// What was sent.
    pub signal: Signal,
    /// Where to: host and path.
    pub endpoint: String,
    /// What the answer means.
    pub verdict: Verdict,
}

/// Asks each endpoint once with an empty request, for `liveqos check`.
///
/// # Errors
/// As [`Otlp::start`]; what an endpoint answered is in the verdicts.
pub async fn check(settings: &OtlpSettings, resource: &Resource) -> Result<Vec<Checked>, StartError> {
    settings.check()?;
    tls::install();
    let mut answers = Vec::new();
    for target in settings.targets() {
        for signal in Signal::ALL {
            let Some(way) = target.way(signal)? else {
                continue;
            };
            let payload = Payload::pack(Frame::new(resource).request(&[]), way.compression).await;
            for (mut transport, url) in Transport::all(&way, signal, target.name())?.into_iter().zip(&way.urls) {
                let verdict = classify(transport.send(&payload).await);
                let endpoint = format!("{}{}", url.authority(), url.path());
                answers.push(Checked { target: target.name().to_owned(), signal, endpoint, verdict });
            }
        }
    }
    Ok(answers)
}

/// The routes of the signals that go to `place`.
fn routes(
    place: super::signal_config::Target<'_>,
    resource: &Resource,
) -> Result<Vec<(Signal, Failover, Compression, Duration)>, StartError> {
    let mut routes = Vec::new();
    for signal in Signal::ALL {
        if let Some(way) = place.way(signal)? {
            let empty = Payload::plain(Frame::new(resource).request(&[]));
            let route = Failover::new(Transport::all(&way, signal, place.name())?, empty);
            routes.push((signal, route, way.compression, way.timeout));
        }
    }
    Ok(routes)
}

/// How long a task may take to notice that its time is up.
const GRACE: Duration = Duration::from_millis(100);
