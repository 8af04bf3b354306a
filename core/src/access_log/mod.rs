//! Access logs: each line becomes the request of a viewer, a player's event report, or a counted error.
//!
//! - **Decides**: which lines and posted reports are media of a class and which class that is, what a line contributes
//!   to its connection's figures, and what is left out for which reason.
//! - **In**: bytes of log lines (file, syslog, pipe), posted CMCD event reports, the log's format and class rule.
//! - **Out**: [`Observation`](crate::model::Observation)s of viewers and of transport for the pipeline, at most one of
//!   each per class and drain; [`ConnectionReport`](crate::connection::ConnectionReport)s that attribute the kernel's
//!   sockets to classes; counts of what was rejected.
//! - **May import**: `base`, `model`, `cmcd`, `viewer`, `connection`.

mod class_path;
mod class_pattern;
mod class_rule;
mod connections;
mod event_posts;
mod field;
mod fold;
mod format;
mod layout_cache;
mod line;
mod rejects;
mod request_target;
pub mod syslog;
mod timestamp;
mod transport;

pub use self::class_path::ClassPath;
pub use self::class_pattern::{ClassPattern, PatternError};
pub use self::class_rule::ClassRule;
pub use self::connections::{ConnectionCounts, LoggedConnections};
pub use self::event_posts::{Authority, Poster};
pub use self::field::Field;
pub use self::fold::LogFold;
pub use self::format::{FormatError, LogFormat};
pub use self::line::{Line, ParsedLine};
pub use self::rejects::{LineError, LineErrorCounts, MAX_LINE, PostCounts};
