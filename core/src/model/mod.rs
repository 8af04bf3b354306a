//! The vocabulary of all stages: sessions, observations, samples, notices, checkpoints, time.
//!
//! **Decides** what a value means: its unit, its provenance, when it is absent; how identities and names are built;
//! where windows of the 5 s grid begin and end. Holds no state of its own.
//!
//! **In**: nothing; other stages build these types.
//!
//! **Out**: types, to every stage of core, to the adapters of `probes` and to the shell. Many are serialized in
//! journals and recordings: their serialized form is fixed.
//!
//! **May import** base only.

mod checkpoint;
pub mod descriptor;
mod environment;
mod group;
mod notice;
mod objectives;
mod observation;
mod reading;
mod sample;
mod session;
mod time;
mod trace_parent;
mod trace_state;

pub use self::checkpoint::{Checkpoint, Class, Entry, Incident, Known, Traced};
pub use self::descriptor::{Descriptor, MAX_PAIRS};
pub use self::environment::{Environment, NodeLoad, PathReport};
pub(crate) use self::group::MAX_GROUPS;
pub use self::group::{Group, GroupKind, GroupView};
pub use self::notice::{Alert, Cause, Evidence, Forecast, Notice, NoticeState, Subject};
pub use self::objectives::{Limits, Objectives, Promise};
pub(crate) use self::observation::MAX_FIRST_FRAMES;
pub use self::observation::{
    Client, Fact, Observation, PathView, PlayerView, Provenance, Rtt, ServerView, SourceName, Total,
};
pub use self::reading::{Figures, Reading};
pub(crate) use self::reading::{SEGMENT, minute_of};
pub use self::sample::{Batch, CloseReason, Closed, LatencyReading, LegSample, Measured, Opened, Sample, Share};
pub use self::session::{Leg, MAX_NAME_BYTES, Name, NameError, Protocol, Scenario, Session, StreamKey};
pub use self::time::{GRID, TICK, Timestamp, Window};
pub use self::trace_parent::{TraceParent, TraceParentError};
pub use self::trace_state::{TraceState, TraceStateError};
