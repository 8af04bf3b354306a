//! What is configured and known of each source: settings, credentials and status.
//!
//! **Decides** which `[[sources]]` tables are valid, with which defaults, and when a source counts as up or down. It
//! does no input or output but reading secrets.
//!
//! **In**: `[[sources]]` tables from the configuration; results of poll rounds, hooks, logs and peer probes.
//!
//! **Out**: a checked [`Source`] for `poll`, `hooks` and `discover`; a [`SourceTable`] for the API, the metrics and the
//! alert rules.
//!
//! **May import** `platform` only; nothing else of `intake`.

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
