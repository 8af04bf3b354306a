//! The node itself: its load from kernel totals, and its paths to other nodes from pings.
//!
//! **Decides** what counts as busy (`load`), when and in which direction a ping is lost (`path_loss`), what a
//! path report contains and when a path is silent (`path_window`), and the bytes of pings and echoes (`ping`).
//!
//! **In**: readings of `/proc` and `/sys`, datagrams, clock instants; all read by the shell.
//!
//! **Out**: [`NodeReading`]s, [`PathReport`](crate::model::PathReport)s for the alerts, [`PathFigures`] for
//! readers.
//!
//! **May import** base, model.

mod load;
pub mod path_loss;
mod path_window;
pub mod ping;

pub use self::load::{CpuTicks, LinkTotals, MAX_LINKS, Memory, NodeReading, NodeTotals, ProcessTotals};
pub use self::path_loss::{DirectionLoss, PathLoss};
pub use self::path_window::{PathFigures, PathWindow};
pub use self::ping::{ECHO_BYTES, Echo, ReceivedPings};
