//! Media accounting: RTP reception and video freezes, computed from single packets and frames.
//!
//! - **Decides**: which RTP packets are lost, repeated or reordered, what the jitter is, and which gap between two
//!   shown frames is a freeze.
//! - **In**: sequence numbers, timestamps and arrival or display times of one stream. Today only the demonstration
//!   (`liveqos demo`) and a browser test feed them; no production source does.
//! - **Out**: running totals ([`ReceptionTotals`], [`PlayoutTotals`]) to whoever feeds the stream.
//! - **May import**: `base`, `model`.

mod freeze;
mod rtp;

pub use self::freeze::{Playout, PlayoutTotals};
pub use self::rtp::{Arrival, Reception, ReceptionTotals};
