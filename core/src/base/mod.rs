//! FACE

mod distinct_viewers;
pub(crate) mod keyed_hash;
mod latency_histogram;
mod small_map;
pub(crate) mod swar;

pub use self::distinct_viewers::{SketchError, ViewerSketch};
pub(crate) use self::keyed_hash::Hashed;
pub use self::latency_histogram::LatencyHistogram;
pub(crate) use self::small_map::SmallMap;
