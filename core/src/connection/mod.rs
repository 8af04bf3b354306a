//! TCP connections of viewers: which session each socket serves, and how late and lossy its delivery is.
//!
//! - **Decides**: which socket belongs to which session, how a backlog and a round-trip time become delivery latency,
//!   and what counts as loss.
//! - **In**: the kernel's socket dumps ([`TcpReading`]); client lists of media servers ([`Client`]) or the access
//!   log's [`ConnectionReport`]s, whichever names the sessions.
//! - **Out**: one [`PathFold`] per session and dump, and per-listener totals ([`Listener`]), to the kernel intake.
//! - **May import**: `base`, `model`. Never `access_log`, which reports to this folder.

mod attribution;
mod delivery;
mod hash;
mod join;
mod loss;
mod response_delay;
mod summary;
mod tcp_info;

pub(crate) use self::attribution::playout_budget;
pub use self::attribution::{AttributionTable, Class, ConnectionReport, ServedResponse};
pub use self::delivery::{Folds, JOIN_BURST, PathTable};
pub(crate) use self::hash::connection_hash;
pub use self::join::{Candidate, Client, Join, Role, SessionIndex};
pub use self::response_delay::{Listener, ResponseDelayTable};
pub use self::summary::PathFold;
pub use self::tcp_info::{SegmentTotals, TcpReading};
