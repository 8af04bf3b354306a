//! FACE

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
