//! The harness of the test binaries: the daemon and other programs as processes, the receivers they report to, and
//! waiting for what must come true.
//!
//! **Decides** that no program outlives its test, that no port is free for anybody else between being chosen and being
//! used, and that a random test can be repeated by its seed.
//!
//! It is a crate so that each binary links it instead of compiling its own copy, and so that what one binary does not
//! use is no dead code in it. It does not depend on `liveqos` itself: the library's own unit tests would then build the
//! library twice. Helpers that need it stand beside the tests that use them.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]
#![expect(clippy::missing_panics_doc, reason = "a panic is how each of them fails its test")]

pub mod collector;
pub mod daemon;
pub mod dashboard;
pub mod named_cause;
pub mod node_certificates;
pub mod notices;
pub mod ports;
pub mod program;
pub mod resetting_listener;
pub mod seed;
pub mod stat_server;
pub mod telemetry;
pub mod wait;
pub mod webhook;
