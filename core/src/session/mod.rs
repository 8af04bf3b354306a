//! FACE

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
