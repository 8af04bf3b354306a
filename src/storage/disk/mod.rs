//! FACE

pub mod folder;
#[cfg(test)]
pub mod forgetful;
pub mod frame;
