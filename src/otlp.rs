//! What a class was, sent to a collector by OTLP 1.11. Decides nothing about classes: it encodes what it is told, keeps it
//! until a collector has taken it, and counts what became of it; refuses to block whoever tells.
//!
//! ```text
//! SpanCommand ─► spans ─┐                        ┌─► frame ─► payload ─► transport (grpc | http) ─► collector
//! families ─► metrics ──┴► Record ─► Outbox ─► sender ◄── retry (what an answer means) ◄─────────────┘
//! ```
//!
//! A record leaves with 1,024 others or after 5 s; class roots, incidents and log events leave 250 ms after they came.

pub mod environment;
pub mod frame;
mod grpc;
mod http;
pub mod http_date;
pub mod ids;
pub mod metrics;
pub mod outbox;
mod payload;
pub mod record;
pub mod resource;
pub mod retry;
mod sender;
pub mod settings;
pub mod spans;
pub mod stats;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use liveqos_core::span::SpanCommand;
use prometheus::proto::MetricFamily;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use self::frame::Frame;
use self::metrics::{Naming, Reading};
use self::outbox::{Backlog, Bell, MemoryOutbox, Outbox};
use self::payload::Payload;
use self::record::{Record, Signal};
use self::resource::Resource;
use self::retry::{Verdict, classify};
pub use self::sender::Pace;
use self::sender::Sender;
use self::settings::OtlpSettings;
use self::stats::Stats;
pub use self::transport::StartError;
use self::transport::Transport;

/// The running export: a task for each signal that is on.
#[derive(Debug)]
pub struct Otlp {
    node: String,
    outbox: Arc<dyn Outbox>,
    bells: [Option<Arc<Bell>>; 3],
    stats: Arc<Stats>,
    stop: watch::Sender<Option<Instant>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Otlp {
    /// Starts with an outbox in memory. Connects when there is something to send. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] for a bad setting, an unreadable file of authorities, or a client that cannot be built.
    pub fn start(settings: &OtlpSettings, resource: &Resource) -> Result<Self, StartError> {
        Self::start_with(settings, resource, Arc::new(MemoryOutbox::default()), Pace::default())
    }

    /// Starts on `outbox` (which may hold records from before) and at `pace`.
    ///
    /// # Errors
    /// As [`Otlp::start`].
    pub fn start_with(
        settings: &OtlpSettings,
        resource: &Resource,
        outbox: Arc<dyn Outbox>,
        pace: Pace,
    ) -> Result<Self, StartError> {
        settings.check()?;
        install_crypto();
        let frame = Frame::new(resource);
        let (stop, stopped) = watch::channel(None);
        let mut otlp = Self {
            node: resource.node.clone(),
            outbox,
            bells: Default::default(),
            stats: Arc::default(),
            stop,
            tasks: Vec::new(),
        };
        let mut senders = Vec::new();
        for signal in Signal::ALL {
            let Some(transport) = Transport::of(settings, signal)? else {
                continue;
            };
            let bell = Arc::<Bell>::default();
            otlp.outbox.hang(signal, Arc::clone(&bell));
            otlp.bells[signal.index()] = Some(Arc::clone(&bell));
            senders.push(Sender {
                signal,
                transport,
                compression: settings.compression,
                frame: frame.clone(),
                outbox: Arc::clone(&otlp.outbox),
                bell,
                stats: Arc::clone(&otlp.stats),
                pace,
                stop: stopped.clone(),
            });
        }
        otlp.tasks = senders.into_iter().map(|sender| tokio::spawn(sender.run())).collect();
        Ok(otlp)
    }

    /// Takes spans and log events. Never waits: what finds no room pushes the oldest out, counted by [`Otlp::dropped`].
    pub fn take(&self, commands: &[SpanCommand]) {
        let wanted = commands.iter().filter(|command| self.sends(signal_of(command)));
        self.append(wanted.map(|command| spans::record(command, &self.node)));
    }

    /// Takes the metrics as they stand; to be called once an interval.
    pub fn push_metrics(&self, families: &[MetricFamily], reading: Reading, naming: Naming) {
        if self.sends(Signal::Metrics) {
            self.append(metrics::records(families, reading, naming).into_iter());
        }
    }

    /// Whether `signal` is on.
    #[must_use]
    pub fn sends(&self, signal: Signal) -> bool {
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

    /// Whether what waits outlives the process.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.outbox.keeps()
    }

    /// Sends what it can within `deadline` and stops; gives what is left of each signal, in the order of [`Signal::ALL`].
    pub async fn stop(mut self, deadline: Duration) -> [Backlog; 3] {
        let until = Instant::now() + deadline;
        self.stop.send_replace(Some(until));
        for mut task in self.tasks.drain(..) {
            if timeout_at(until + GRACE, &mut task).await.is_err() {
                task.abort();
            }
        }
        Signal::ALL.map(|signal| self.outbox.backlog(signal))
    }

    fn append(&self, records: impl Iterator<Item = Record>) {
        // For each signal: nothing came, something came, something urgent came.
        let mut came = [None; 3];
        for record in records {
            let urgent = came[record.signal.index()].get_or_insert(false);
            *urgent |= record.urgent;
            self.outbox.append(record);
        }
        for (bell, urgent) in self.bells.iter().zip(came) {
            if let (Some(bell), Some(urgent)) = (bell, urgent) {
                bell.ring(urgent);
            }
        }
    }
}

/// Asks each endpoint once with an empty request, for `liveqos check`.
///
/// # Errors
/// As [`Otlp::start`]; what an endpoint answered is in the verdicts.
pub async fn check(settings: &OtlpSettings, resource: &Resource) -> Result<Vec<(Signal, Verdict)>, StartError> {
    settings.check()?;
    install_crypto();
    let mut verdicts = Vec::new();
    for signal in Signal::ALL {
        if let Some(mut transport) = Transport::of(settings, signal)? {
            let payload = Payload::pack(Frame::new(resource).request(&[]), settings.compression).await;
            verdicts.push((signal, classify(transport.send(&payload).await)));
        }
    }
    Ok(verdicts)
}

const fn signal_of(command: &SpanCommand) -> Signal {
    match command {
        SpanCommand::Export(_) => Signal::Traces,
        SpanCommand::Emit(_) => Signal::Logs,
    }
}

/// Sets the process's TLS implementation; one that is already set stays.
fn install_crypto() {
    rustls::crypto::ring::default_provider().install_default().unwrap_or_else(drop);
}

/// How long a task may take to notice that its time is up.
const GRACE: Duration = Duration::from_millis(100);
