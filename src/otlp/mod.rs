//! OTLP export of spans, log events and metrics to collectors, with sampling, retries and failover.
//!
//! ```text
//! SpanCommand ─► sampling ─► encode ─┐
//! metrics (encoded in src/metrics) ──┴► Record ─► ExportQueue, one for each target
//! ExportQueue ─► sender ─► request ─► payload ─► failover ─► transport (grpc | http) ─► collector
//!                 └◄─────── retry (what the answer means) ◄───────────────────────────────┘
//! ```
//!
//! - **Decides** which classes' traces are exported, how records are batched, when a batch is sent and repeated, and
//!   what an answer means (OTLP 1.11). A record is sent with up to 1,023 others or after 5 s; class roots, incidents
//!   and log events are sent within 250 ms.
//! - **In**: span commands of core's trace plan, encoded metrics, `[otlp]` and `[sampling]` of the configuration with
//!   the `OTEL_*` variables.
//! - **Out**: OTLP requests over gRPC or HTTP; counters for the metrics page; changes of the sampling state for
//!   storage.
//! - **May import** platform; of core, base, model and trace. Storage implements [`ExportQueue`] on disk; otlp does not
//!   know it.

mod answer_timeout;
pub mod encode;
mod environment;
mod exporter;
mod failover;
mod payload;
mod queue;
mod record;
pub(crate) mod request;
mod resource;
pub mod retry;
pub mod sampling;
mod send_order;
mod sender;
mod settings;
mod signal_config;
pub mod stats;
pub(crate) mod transport;

pub use self::exporter::{Otlp, Target, check};
pub use self::queue::{Backlog, ExportQueue, Limits, MemoryQueue, Room};
pub(crate) use self::queue::{Batch, Wakeup};
pub use self::record::{Record, Signal};
pub use self::resource::{Resource, Role};
pub use self::retry::Verdict;
pub use self::sender::Pace;
pub use self::settings::{Compression, CopySettings, OtlpSettings, Protocol, Secret};
