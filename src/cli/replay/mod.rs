//! Replays access logs or recordings through the rules of live operation: `liveqos replay`.
//!
//! **Decides** from its first line whether a file is a log or a recording, in which order the lines of several logs are
//! read, and which time counts as the present.
//!
//! **In**: files with log lines or recorded events, plain or gzip.
//!
//! **Out**: samples and notices, as the daemon would report or has reported them.
//!
//! **May import** as `cli`.

mod access_logs;
mod command;
mod printer;
mod recording;

pub(super) use self::command::{Options, run};
