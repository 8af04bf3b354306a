//! What each media server tells: one file a server, no IO. `ls probes` lists what is supported.

pub mod nginx_rtmp;
pub mod probe;
pub mod srs;

use probe::Kind;

/// Every kind of source, in the order discovery and the reference list them. Adding a server: its file, one line here,
/// its fixtures.
pub static KINDS: &[&Kind] = &[&srs::KIND, &nginx_rtmp::KIND];

/// The kind of this name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}
