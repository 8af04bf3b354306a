//! FACE

pub mod layers;
pub mod reference;
pub mod settings;
