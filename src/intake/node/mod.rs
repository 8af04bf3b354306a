//! Reads the load of this node from `/proc` and `/sys` every five seconds.
//!
//! **Decides** which network links count and what their capacity is.
//!
//! **In**: `/proc` and `/sys`, and the link speed from the `[kernel]` table.
//!
//! **Out**: the node's load for the alert rules, and gauges of the node and of the daemon itself.
//!
//! **May import** `platform`.

mod load;
mod procfs;

pub(crate) use self::load::LoadReader;
