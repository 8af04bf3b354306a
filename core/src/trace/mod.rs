//! FACE

pub mod attributes;
pub mod plan;
pub mod segment;
pub mod span;
