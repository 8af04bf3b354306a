//! Finds the media servers that run on this host.
//!
//! **Decides** which programs may be media servers (by process name), which URLs may be their status interfaces, and
//! how many requests that may take. A server counts as found only when its probe understood a response.
//!
//! **In**: `/proc`, and responses on the loopback.
//!
//! **Out**: `[[sources]]` tables for `liveqos run` without a configuration, and the text that `liveqos discover`
//! prints.
//!
//! **May import** `poll` and `source` of `intake`.

mod candidates;
mod process;
mod report;
mod scan;

pub(crate) use self::scan::{report, sources};
