//! FACE

pub(crate) mod event_queue;
mod follower;
pub(crate) mod settings;
mod syslog_socket;
mod tail;

pub use self::event_queue::Sender;
pub(crate) use self::event_queue::{Claimed, Full, Post, PostBox, PostTray};
pub(crate) use self::follower::{FollowerContext, followed, start_all};
pub(crate) use self::settings::{AccessLogSettings, LogSource};
pub(crate) use self::syslog_socket::SyslogSocket;
