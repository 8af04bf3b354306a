//! The media half of `liveqos demo`: a live class on loopback with real WebRTC media, viewers that know their own truth,
//! and links that can be made bad. Decides nothing about quality: it makes the class that the daemon then judges.

mod candidate;
mod class;
mod clip;
mod frames;
mod guest;
mod link;
mod node;
mod peer;
mod publisher;
pub mod shaper;
mod stage;
mod viewer;

pub use class::{Class, ClassOptions, DemoError, MAX_VIEWERS};
pub use clip::ClipError;
pub use guest::Guest;
pub use link::LinkTotals;
pub use node::{EgressTotals, IngestTotals};
pub use peer::PeerError;
pub use shaper::Impairment;
pub use viewer::ViewerTotals;
