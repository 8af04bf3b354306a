//! Reads access logs and the event reports of players, and folds them into observations of classes.
//!
//! **Decides** where a log is read on after a restart or a rotation, whose syslog datagrams are accepted, and how many
//! event reports may wait. What a line means is decided in `liveqos_core::access_log`.
//!
//! **In**: log files, syslog datagrams over UDP or a Unix socket, event reports (CTA-5004-B) from `POST /v1/cmcd`.
//!
//! **Out**: at most one observation per class and tick; the connections that lines contain go to the kernel intake, the
//! position in a file to its position file.
//!
//! **May import** `platform`, `storage::disk` (the frame of a position file), and `kernel`, `source` and `observations`
//! of `intake`.

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
