//! FACE

mod checked;
mod credentials;
mod entry;
mod settings;
mod shown_url;
mod status;
mod table;

pub(crate) use self::checked::Source;
pub(crate) use self::entry::{RoundReport, SourceEntry};
pub(crate) use self::settings::SourceSettings;
pub(crate) use self::shown_url::shown;
pub(crate) use self::status::{SourceState, SourceStatus};
pub use self::table::SourceTable;
