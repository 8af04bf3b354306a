//! FACE

mod load;
pub mod path_loss;
mod path_window;
pub mod ping;

pub use self::load::{CpuTicks, LinkTotals, MAX_LINKS, Memory, NodeReading, NodeTotals, ProcessTotals};
pub use self::path_loss::{PathLoss, Ways};
pub use self::path_window::{PathFigures, PathWindow};
pub use self::ping::{Came, ECHO_BYTES, Echo};
