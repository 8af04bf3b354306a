//! Data structures and text codecs that know nothing of live media: hashes, histograms, maps, digits.
//!
//! - **Decides**: how latencies and distinct viewers are kept in little memory, how hashes are keyed, how hexadecimal
//!   and percent-encoded text is read and written.
//! - **In**: bytes, numbers and durations from every other folder.
//! - **Out**: the same, folded, hashed or decoded.
//! - **May import**: nothing of this crate.

mod distinct_viewers;
mod fnv;
pub mod hex;
pub(crate) mod keyed_hash;
mod latency_histogram;
pub mod percent;
mod small_map;
pub(crate) mod swar;

pub use self::distinct_viewers::{SketchError, ViewerSketch};
pub use self::fnv::fnv1a;
pub(crate) use self::keyed_hash::Hashed;
pub use self::latency_histogram::LatencyHistogram;
pub(crate) use self::small_map::SmallMap;
