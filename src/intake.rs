//! Every way in: media servers asked and heard, the kernel's word on viewers' connections, the node's own load. Decides how each is
//! asked; all end in the same bounded channel of observations, and none judges what it hears.

pub mod edge;
pub mod fetch;
pub mod hooks;
pub mod kernel;
pub mod load;
pub mod log_settings;
pub mod log_tail;
pub mod login;
pub mod logs;
pub mod node;
pub mod pace;
pub mod paths;
pub mod poll;
pub mod posts;
pub mod round;
pub mod source;
pub mod status;
pub mod syslog_socket;
#[cfg(test)]
pub(crate) mod testing;
