//! FACE

mod load;
mod procfs;

pub(crate) use self::load::LoadReader;
