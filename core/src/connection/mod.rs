//! FACE

pub(crate) mod attribution;
mod delivery;
pub mod join;
mod loss;
mod response_delay;
mod summary;
mod tcp_info;

pub use self::attribution::{AttributionTable, Class, ConnectionReport, ServedResponse};
pub use self::delivery::{Folds, JOIN_BURST, PathTable};
pub use self::join::{Candidate, Client, Join, Role, SessionIndex};
pub use self::response_delay::{Listener, ResponseDelayTable};
pub use self::summary::PathFold;
pub use self::tcp_info::{SegmentTotals, TcpReading};
