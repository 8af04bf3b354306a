//! The program killed at random instants under a load of 200 classes, and on disks that fill up or cannot be written
//! yet. It takes some minutes, so a plain `cargo test` leaves it out: `cargo test --test kill`; `KILLS=200` for the
//! long run, `LIVEQOS_TEST_SEED` for the instants of an earlier run.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

mod full_disk;
mod held;
mod kills;
mod outage;
mod read_only;
mod sdk;
mod seen;
