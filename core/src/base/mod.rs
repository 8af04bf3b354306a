//! FACE

pub mod distinct_viewers;
pub mod keyed_hash;
pub mod latency_histogram;
pub(crate) mod small_map;
pub(crate) mod swar;
