//! The running export: a queue for each target, and a task for each signal sent to it. Queues span commands and metrics
//! without ever blocking the caller.

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
use super::request::RequestTemplate;
use super::resource::Resource;
use super::retry::{Verdict, classify};
use super::sampling::{Change, Counts, Holding, Sampling};
use super::sender::{Pace, Progress, Sender};
use super::settings::{Compression, OtlpSettings};
use super::stats::Stats;
use super::transport::{StartError, Transport};
use crate::platform::tls;

/// The running export.
#[derive(Debug)]
pub struct Otlp {
    sampling: Mutex<Sampling>,
    sampling_counts: Arc<Counts>,
    targets: Vec<Target>,
    stop: watch::Sender<Option<Instant>>,
    tasks: Vec<JoinHandle<()>>,
}

/// A running target: `main`, or one of the copies.
#[derive(Debug)]
pub struct Target {
    name: Arc<str>,
    queue: Arc<dyn ExportQueue>,
    wakeups: [Option<Arc<Wakeup>>; 3],
    stats: Arc<Stats>,
}

/// Opens the queue of the target of this name.
pub(super) type OpenQueue<'a> = &'a dyn Fn(&str) -> Result<Arc<dyn ExportQueue>, String>;

impl Otlp {
    /// Starts with queues in memory. Connections are opened when there is something to send. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] for an invalid setting, an unreadable certificate file, or a client that cannot be built.
    pub fn start(settings: &OtlpSettings, resource: &Resource, sampling: Sampling) -> Result<Self, StartError> {
        let open = |_: &str| Ok(Arc::<MemoryQueue>::default() as Arc<dyn ExportQueue>);
        Self::start_with(settings, resource, sampling, &open, Pace::default())
    }

    /// Starts at `pace` with the queues that `open` gives, one for each target; they may contain records of earlier
    /// runs.
    ///
    /// # Errors
    /// As [`Otlp::start`], or a queue that cannot be opened.
    pub fn start_with(
        settings: &OtlpSettings,
        resource: &Resource,
        sampling: Sampling,
        open: OpenQueue<'_>,
        pace: Pace,
    ) -> Result<Self, StartError> {
        settings.check()?;
        tls::install();
        let (stop, stopped) = watch::channel(None);
        let mut targets = Vec::new();
        let mut senders = Vec::new();
        for configured in settings.targets() {
            let destinations = destinations(configured, resource)?;
            if destinations.is_empty() {
                continue;
            }
            let refuse = |why| StartError::Queue { target: configured.name().to_owned(), why };
            let mut target = Target {
                name: configured.name().into(),
                queue: open(configured.name()).map_err(refuse)?,
                wakeups: Default::default(),
                stats: Arc::default(),
            };
            for (signal, failover, compression, timeout) in destinations {
                let wakeup = Arc::<Wakeup>::default();
                target.queue.set_wakeup(signal, Arc::clone(&wakeup));
                target.wakeups[signal.index()] = Some(Arc::clone(&wakeup));
                senders.push(Sender {
                    signal,
                    target: Arc::clone(&target.name),
                    failover,
                    compression,
                    timeout,
                    template: RequestTemplate::new(resource),
                    queue: Arc::clone(&target.queue),
                    wakeup,
                    stats: Arc::clone(&target.stats),
                    pace,
                    stop: stopped.clone(),
                    progress: Progress::default(),
                });
            }
            targets.push(target);
        }
        let tasks = senders.into_iter().map(|sender| tokio::spawn(sender.run())).collect();
        Ok(Self { sampling_counts: sampling.counts(), sampling: Mutex::new(sampling), targets, stop, tasks })
    }

    /// Queues the spans and log events that are sampled. Never waits: where a queue is full the oldest records are
    /// dropped, counted by [`Target::dropped`].
    pub fn take(&self, commands: &[SpanCommand]) {
        let records = self.sampling().take(commands, |signal| self.sends(signal));
        self.append(&records);
    }

    /// Counts of classes by the sampling decision.
    #[must_use]
    pub fn sampling_counts(&self) -> &Counts {
        &self.sampling_counts
    }

    /// A poisoned lock stays in use: at worst a class is decided on again.
    fn sampling(&self) -> MutexGuard<'_, Sampling> {
        self.sampling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues metrics that are encoded already ([`crate::metrics::otlp::records`]); call it once an interval.
    pub fn push_metrics(&self, records: &[Record]) {
        self.append(records);
    }

    /// Whether `signal` is sent to any target.
    #[must_use]
    pub fn sends(&self, signal: Signal) -> bool {
        self.targets.iter().any(|target| target.gets(signal))
    }

    /// The running targets.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether queued records outlive the process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.targets.iter().all(|target| target.queue.is_durable())
    }

    /// Changes of the sampling state since the last call, for storage.
    #[must_use]
    pub fn take_changes(&self) -> Vec<Change> {
        self.sampling().take_changes()
    }

    /// Adds the sampling state of classes that could not be read at the start; see [`Sampling::join`].
    pub fn join(&self, found: &Holding, lives: impl Fn(&Name) -> bool) {
        self.sampling().join(found, lives);
    }

    /// Queues everything that sampling holds, because the daemon stops and nothing is kept on disk.
    pub fn release(&self) {
        let held = self.sampling().release_all();
        self.append(&held);
    }

    /// Sends what it can within `deadline` and stops. Returns what is still queued for all targets, in the order of
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
    /// `main`, or the name of a copy.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `signal` is sent to it.
    #[must_use]
    pub fn gets(&self, signal: Signal) -> bool {
        self.wakeups[signal.index()].is_some()
    }

    /// Its counters, which may be read at any time.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// What is queued of `signal`.
    #[must_use]
    pub fn backlog(&self, signal: Signal) -> Backlog {
        self.queue.backlog(signal)
    }

    /// Spans, log records or data points of `signal` dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self, signal: Signal) -> u64 {
        self.queue.dropped(signal)
    }

    /// Records of `signal` that were read back damaged.
    #[must_use]
    pub fn damaged(&self, signal: Signal) -> u64 {
        self.queue.damaged(signal)
    }

    fn append(&self, records: &[Record]) {
        // For each signal: nothing, something, or something urgent was appended.
        let mut appended = [None; 3];
        for record in records.iter().filter(|record| self.gets(record.signal)) {
            let urgent = appended[record.signal.index()].get_or_insert(false);
            *urgent |= record.urgent;
            self.queue.append(record.clone());
        }
        for (wakeup, urgent) in self.wakeups.iter().zip(appended) {
            if let (Some(wakeup), Some(urgent)) = (wakeup, urgent) {
                wakeup.notify(urgent);
            }
        }
    }
}

/// The answer of one endpoint to `liveqos check`.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The target's name.
    pub target: String,
    /// The signal sent.
    pub signal: Signal,
    /// Host and path.
    pub endpoint: String,
    /// The meaning of the answer.
    pub verdict: Verdict,
}

/// Sends each endpoint one empty request, for `liveqos check`.
///
/// # Errors
/// As [`Otlp::start`]; a failing endpoint is no error but a verdict.
pub async fn check(settings: &OtlpSettings, resource: &Resource) -> Result<Vec<Checked>, StartError> {
    settings.check()?;
    tls::install();
    let mut answers = Vec::new();
    for target in settings.targets() {
        for signal in Signal::ALL {
            let Some(config) = target.signal_config(signal)? else {
                continue;
            };
            let payload = Payload::compress(RequestTemplate::new(resource).build(&[]), config.compression).await;
            for (mut transport, url) in Transport::all(&config, signal, target.name())?.into_iter().zip(&config.urls) {
                let verdict = classify(transport.send(&payload).await);
                let endpoint = format!("{}{}", url.authority(), url.path());
                answers.push(Checked { target: target.name().to_owned(), signal, endpoint, verdict });
            }
        }
    }
    Ok(answers)
}

/// The signals sent to a target, each with its endpoints, compression and time-out.
fn destinations(
    configured: super::signal_config::Target<'_>,
    resource: &Resource,
) -> Result<Vec<(Signal, Failover, Compression, Duration)>, StartError> {
    let mut destinations = Vec::new();
    for signal in Signal::ALL {
        if let Some(config) = configured.signal_config(signal)? {
            let empty = Payload::plain(RequestTemplate::new(resource).build(&[]));
            let failover = Failover::new(Transport::all(&config, signal, configured.name())?, empty);
            destinations.push((signal, failover, config.compression, config.timeout));
        }
    }
    Ok(destinations)
}

/// How long a task may take to notice that its time is up.
const GRACE: Duration = Duration::from_millis(100);
