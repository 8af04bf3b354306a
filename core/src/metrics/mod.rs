//! FACE

pub mod catalog;
pub mod metric;
pub mod node_totals;
