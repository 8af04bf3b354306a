//! The live classes: which stream belongs to which class, when it opens and closes, its folded state.
//!
//! **Decides** identity, opening and closing (`registry`), what a class's sources add up to (`live_session`,
//! `leg`, `server_view`), and when two counter readings give a rate (`counter`).
//!
//! **In**: [`Observation`](crate::model::Observation)s of probes, logs, players and the kernel; announcements and
//! ends by the platform.
//!
//! **Out**: a [`Batch`](crate::model::Batch) per tick (opened, samples, closed); [`Entry`](crate::model::Entry)s
//! that must outlive the daemon; the folded totals, to the alerts.
//!
//! **May import** base, model.

mod counter;
mod group_tally;
mod leg;
mod live_session;
mod registry;
mod server_view;
mod timeouts;

pub use self::group_tally::{Groups, Tally};
pub use self::leg::{LegTotals, LiveLeg};
pub use self::live_session::Live;
pub use self::registry::{Refused, Registry};
pub use self::server_view::ServerState;
pub use self::timeouts::SessionTimeouts;
