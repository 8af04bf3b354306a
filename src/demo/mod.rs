//! Plays the demonstration class of `liveqos demo`: real WebRTC media on loopback, links that can be impaired.
//!
//! **Decides** how the class is built: a teacher, a node that forwards, viewers that measure what they see, and for
//! each viewer a link with loss, delay and a bottleneck. It does not judge quality; the daemon does.
//!
//! **In**: a clip embedded in the program; the script of `cli`, and in tests that of the faults.
//!
//! **Out**: views of the node as a media server would report them, reports of viewers as players would send them, and
//! exact totals of media and links.
//!
//! **May import** nothing of the other stages; only `cli` imports it.

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
