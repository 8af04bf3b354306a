//! The program killed at random instants under a load of 200 classes, and on disks that fill up or cannot be written
//! yet. Some minutes, so a plain `cargo test` leaves it out: `cargo test --test kill`; `KILLS=200` for the long run.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

mod classes;
#[path = "../real/daemon.rs"]
#[expect(dead_code, reason = "the tests beside real servers ask it for more")]
mod daemon;
mod full_disk;
mod held;
mod kills;
mod outage;
#[path = "../otlp/classes.rs"]
#[expect(dead_code, reason = "the tests of export ask it for more")]
mod past;
#[path = "../real/program.rs"]
mod program;
mod read_only;
#[path = "../otlp/receiver.rs"]
#[expect(dead_code, reason = "the tests of export ask it for more")]
mod receiver;
#[path = "../otlp/resetting.rs"]
mod resetting;
mod sdk;
mod seen;
#[path = "../real/wait.rs"]
mod wait;
