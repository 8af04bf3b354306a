//! Reads the TCP connections of viewers from the kernel, with their `tcp_info`.
//!
//! **Decides** which ports are looked up, how the kernel is asked (netlink `sock_diag`) and how its bytes are parsed.
//! Which socket belongs to which class is decided in `liveqos_core::connection`.
//!
//! **In**: dumps of sockets, once a tick; the watch list of live classes from the engine; the connections that access
//! logs contain ([`HttpEdge`]).
//!
//! **Out**: at most one observation per stream and tick; metrics of this node's HTTP listeners.
//!
//! **May import** `platform`, and `observations` of `intake`; never `engine` or `peers`.

pub mod diag_message;
mod http_edge;
#[cfg(test)]
mod real_viewers_test;
mod settings;
mod sock_diag;
mod tcp_poller;
mod watchlist;

pub use self::http_edge::{EdgeWatch, HttpEdge};
pub use self::settings::KernelSettings;
pub use self::sock_diag::Dump;
pub(crate) use self::tcp_poller::TcpPoller;
pub(crate) use self::watchlist::ConnectionWatchlist;
