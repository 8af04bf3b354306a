//! The engine: one thread that owns the rules, folds observations and ticks every 250 ms.
//!
//! - **Decides** when a tick is due and what readers see of it. The rules themselves are in `liveqos-core`.
//! - **In**: observations and commands through bounded queues; at each tick the fold of beacons and the state of
//!   sources, paths and node.
//! - **Out**: a snapshot, to the API and the metrics; the results of each tick, to the sinks that `app` connects; a
//!   recording of the rules' input.
//! - **May import** platform, intake and peers; of core, everything.

mod history;
mod io;
mod json;
mod recorder;
mod settings;
mod snapshot;
mod tick;

pub(crate) use self::history::History;
pub(crate) use self::io::{Deliver, EngineIo, Gather, Persist, Published, Surroundings};
pub(crate) use self::json::{capacity_json, notice_json, sample_json, session_json};
pub use self::recorder::RecordTo;
pub(crate) use self::recorder::{Recorder, is_compressed, is_recording};
pub use self::settings::HistorySettings;
pub(crate) use self::snapshot::Exemplar;
pub use self::snapshot::Snapshot;
pub(crate) use self::tick::{Command, Commands, MAX_COMMANDS, MAX_WAITING, start};
