//! The kernel as a witness of TCP viewers: one dump of all sockets with their `tcp_info`. Decides how the kernel is asked
//! and how its bytes are read; refuses to say which socket belongs to which class (`liveqos_core::connection::join` does).

pub mod diag_message;
pub mod http_edge;
pub mod sock_diag;
pub mod tcp_poller;
pub mod watchlist;
#[cfg(test)]
mod witness_test;
