//! FACE

mod process;
pub mod scan;
