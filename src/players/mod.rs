//! What players report of themselves: beacons with playback sums, and CMCD event reports.
//!
//! - **Decides** who may report for which class (a signed, expiring token, or a trusted address), how often an address
//!   may post, which web pages may read the responses, and how long the end of a class is remembered. How beacons are
//!   folded is decided in core's `viewer`.
//! - **In**: requests of players through `http`; ends of classes from the API.
//! - **Out**: one observation a class and tick from beacons, to the engine; CMCD event reports, to the viewers of an
//!   access log in intake.
//! - **May import** platform, http and intake; of core, base, model, cmcd, viewer and metrics.

mod beacon;
mod client_policy;
mod cmcd;
mod ended_sessions;
mod endpoints;
mod listener;
mod rate_limit;
mod script;
mod settings;
mod state;
mod token;

pub use self::beacon::Beacons;
pub(crate) use self::client_policy::ClientPolicy;
pub(crate) use self::cmcd::{CmcdIntake, StreamLookup};
pub(crate) use self::ended_sessions::EndedSessions;
pub(crate) use self::endpoints::PlayerService;
pub(crate) use self::listener::{PlayerListener, dispatch_rule};
pub use self::script::SCRIPT;
pub(crate) use self::settings::{BeaconSettings, CmcdSettings, IngestSettings};
pub(crate) use self::state::PlayerState;
pub use self::token::Key;
