//! FACE

mod candidates;
mod process;
mod report;
mod scan;

pub(crate) use self::scan::{report, sources};
