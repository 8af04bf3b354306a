//! FACE

pub mod counter;
pub mod leg;
pub mod live_session;
pub mod registry;
pub mod server_view;
