//! Every way in: media servers asked and heard, the kernel's word on viewers' connections, the node's own load. Decides how each is
//! asked; all end in the same bounded channel of observations, and none judges what it hears.

pub mod access_log;
pub mod discover;
pub mod hooks;
pub mod kernel;
pub mod node;
pub mod poll;
pub mod source;
pub mod source_status;
#[cfg(test)]
pub(crate) mod testing;
