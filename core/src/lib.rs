//! The rules of liveqos.

pub mod node;
pub mod tcp;
pub mod tcp_fold;
pub mod tcp_join;
pub mod tcp_path;
pub mod time;
