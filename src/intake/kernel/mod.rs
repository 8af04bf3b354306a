//! The kernel as a witness of TCP viewers: one dump of all sockets with their `tcp_info`. Decides how the kernel is
//! asked and how its bytes are read; refuses to say which socket belongs to which class
//! (`liveqos_core::connection::join` does).

pub mod diag_message;
mod http_edge;
mod settings;
mod sock_diag;
mod tcp_poller;
mod watchlist;
#[cfg(test)]
mod witness_test;

pub use self::http_edge::{EdgeWatch, HttpEdge};
pub use self::settings::KernelSettings;
pub use self::sock_diag::Dump;
pub(crate) use self::tcp_poller::TcpPoller;
pub(crate) use self::watchlist::ConnectionWatchlist;
