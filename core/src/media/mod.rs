//! FACE

mod freeze;
mod rtp;

pub use self::freeze::{Playout, PlayoutTotals};
pub use self::rtp::{Arrival, Reception, ReceptionTotals};
