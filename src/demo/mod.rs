//! The media half of `liveqos demo`: a live class on loopback with real WebRTC media, viewers that know their own
//! truth, and links that can be made bad. Decides nothing about quality: it makes the class that the daemon then
//! judges.

mod class;
mod clip;
mod clock;
mod external_viewer;
mod frames;
mod ingest;
mod link;
mod node;
mod peer;
mod publisher;
mod sdp_candidate;
mod shaper;
mod viewer;
pub mod viewer_report;

pub use class::{Class, ClassOptions, DemoError, MAX_VIEWERS};
pub use clip::ClipError;
pub use external_viewer::ExternalViewer;
pub use link::LinkTotals;
pub use node::{EgressTotals, IngestTotals};
pub use peer::PeerError;
pub use publisher::Sending;
pub use shaper::Impairment;
pub use viewer::ViewerTotals;
pub use viewer_report::viewer_report;

pub use self::shaper::{Fate, Shaper};
