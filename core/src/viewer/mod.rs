//! Viewers: what players report, folded into watch time, stall time and groups of each class.
//!
//! - **Decides**: who is a viewer and for how long, what counts as exposure and as a stall, and which network, region
//!   and player group a viewer belongs to.
//! - **In**: CMCD requests and event reports, from the access log's fold; WebRTC reports of pages (`beacon_*`), from
//!   the player listener.
//! - **Out**: [`PlayerView`](crate::model::PlayerView) observations, at most one a class and drain, to the pipeline.
//! - **May import**: `base`, `model`, `cmcd`. Never `session`, which takes its observations.

mod beacon_fold;
mod beacon_report;
mod beacon_viewer;
mod buffer_stall;
mod class_table;
mod delta;
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
pub use self::origin::{Address, GroupRules, Origin};
pub use self::player_name::{Named, PlayerName};
pub use self::table::MAX_VIEWERS;
