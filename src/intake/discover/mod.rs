//! FACE

mod process;
mod scan;

pub(crate) use self::scan::{report, sources};
