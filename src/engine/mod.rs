//! FACE

mod history;
pub(crate) mod recorder;
pub(crate) mod snapshot;
mod tick;

pub(crate) use self::history::History;
pub use self::recorder::RecordTo;
pub(crate) use self::recorder::Recorder;
pub use self::snapshot::Snapshot;
pub(crate) use self::snapshot::{Exemplar, SessionState};
pub(crate) use self::tick::{Command, EngineIo, Keep, MAX_COMMANDS, MAX_WAITING, start};
