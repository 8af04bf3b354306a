//! Adapters of media servers: what each server's answers and hooks mean, without IO.
//!
//! One file per server; `ls probes` lists what is supported. **In**: replies and hook bodies, as the shell received
//! them. **Out**: observations of streams, and the requests of the next round. May import core's `model` and `base`
//! only.

pub mod nginx_rtmp;
pub mod probe;
pub mod srs;

use probe::Kind;

/// Every kind of source, in the order in which discovery and the reference list them. A new server needs its file, one
/// line here, and its fixtures.
pub static KINDS: &[&Kind] = &[&srs::KIND, &nginx_rtmp::KIND];

/// The kind of this name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}
