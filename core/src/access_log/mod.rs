//! FACE

mod class_path;
mod class_pattern;
mod connections;
mod event_posts;
mod field;
mod fold;
mod format;
mod layout_cache;
mod request_target;
pub mod syslog;
mod timestamp;
pub(crate) mod transport;

pub use self::class_path::ClassPath;
pub use self::class_pattern::{ClassPattern, PatternError};
pub use self::connections::{Answer, ConnectionCounts, LoggedConnections};
pub use self::event_posts::{Authority, PostCounts, Poster};
pub use self::field::Field;
pub use self::fold::{ClassRule, Dirty, DirtyCounts, LogFold, MAX_LINE, OpenedLine};
pub use self::format::{FormatError, Line, LogFormat};
