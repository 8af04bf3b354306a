//! FACE

mod counter;
mod leg;
mod live_session;
mod registry;
mod server_view;

pub(crate) use self::leg::MAX_FIRST_FRAMES;
pub use self::leg::{LegTotals, LiveLeg};
pub use self::live_session::Live;
pub use self::registry::{Refused, Registry, SessionTimeouts};
pub use self::server_view::ServerState;
