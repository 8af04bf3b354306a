//! FACE

mod decode;
pub mod report;
pub(crate) mod structured_field;
