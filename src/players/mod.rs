//! FACE

mod beacon;
mod beacon_report;
mod beacon_viewer;
mod cmcd;
mod ended_sessions;
pub(crate) mod listener;
mod rate_limit;
mod script;
mod settings;
mod token;

pub use self::beacon::{Beacons, Taken};
pub use self::beacon_report::{MAX_MESSAGES, MAX_SPAN};
pub(crate) use self::cmcd::CmcdIntake;
pub(crate) use self::ended_sessions::EndedSessions;
pub(crate) use self::listener::{ClientPolicy, Peer, PlayerEndpoints, PlayerListener, PlayerService};
pub use self::script::SCRIPT;
pub(crate) use self::settings::{CmcdSettings, IngestSettings};
pub use self::token::Key;
