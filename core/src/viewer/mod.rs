//! FACE

mod beacon_fold;
mod beacon_report;
mod beacon_viewer;
mod buffer_stall;
mod class_table;
mod fold;
mod group_table;
mod origin;
mod playback;
mod player_name;
mod recent_stall;
mod state_stall;
mod table;

pub use self::beacon_fold::{Beacon, BeaconFold, BeaconOutcome, BeaconRefused};
pub use self::beacon_report::{
    BeaconBody, BeaconReport, MAX_BEACON_BYTES, MAX_EXPOSURE, MAX_MESSAGES, MalformedBeacon,
};
pub use self::class_table::MAX_SESSIONS;
pub use self::fold::{FoldCounts, Request, ViewerFold, ViewerKey};
pub use self::group_table::{GroupTable, MAX_NAMED, Membership, Watched};
pub use self::origin::{Address, GroupRules, Origin};
pub use self::player_name::{Named, PlayerName};
pub use self::table::MAX_VIEWERS;
