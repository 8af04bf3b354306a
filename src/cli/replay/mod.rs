//! FACE

mod access_logs;
mod command;
mod printer;
mod recording;

pub(super) use self::command::{Options, run};
