//! FACE

mod access_logs;
pub mod command;
mod printer;
mod recording;
