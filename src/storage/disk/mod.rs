//! FACE

mod folder;
#[cfg(test)]
mod forgetful;
pub mod frame;

pub(crate) use self::folder::NEW;
pub use self::folder::{Appender, Disk, Folder};
#[cfg(test)]
pub(crate) use self::forgetful::Forgetful;
pub(crate) use self::frame::{Frame, MAX_PAYLOAD, Step};
