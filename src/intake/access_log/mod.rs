//! FACE

pub(crate) mod event_queue;
mod follower;
mod position;
pub(crate) mod settings;
mod syslog_socket;
mod tail;

pub use self::event_queue::Requester;
pub(crate) use self::event_queue::{EventPost, EventQueue, EventReceiver, OwnedAuthority, QueueFull};
pub(crate) use self::follower::{FollowerContext, log_inputs, start_all};
pub(crate) use self::settings::{AccessLogSettings, LogSource};
pub(crate) use self::syslog_socket::SyslogSocket;
