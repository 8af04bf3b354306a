//! FACE

pub mod metrics;
pub mod routes;
pub mod sessions;
