//! FACE

mod buffer_stall;
mod class_table;
pub mod fold;
pub mod group_table;
pub mod origin;
mod playback;
pub mod player_name;
mod recent_stall;
mod state_stall;
mod table;
