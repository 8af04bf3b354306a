//! Which classes' traces are exported: a share of each scenario, and every class that had a fault.
//!
//! - **Decides** at a class's first span by the share of its scenario; a class that is not kept is held until its first
//!   fault or its end. Thresholds are those of OpenTelemetry's consistent probability sampling.
//! - **In**: span commands of core's trace plan, `[sampling]` of the configuration, what storage kept of an earlier
//!   run.
//! - **Out**: encoded records to send, changes of its state for storage, counts for `liveqos_sampling_total`.
//! - **May import** platform and its parent; of core, base, model and trace.

mod held;
mod sampler;
mod scenario;
mod settings;
mod threshold;

pub(crate) use self::held::{Change, Holding};
pub(crate) use self::sampler::Counts;
pub use self::sampler::Sampling;
pub use self::settings::SamplingSettings;
pub use self::threshold::{Randomness, Threshold};
