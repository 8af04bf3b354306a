//! FACE

pub mod load;
pub mod procfs;
