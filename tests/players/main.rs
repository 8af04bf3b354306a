//! The truth of real players: hls.js, dash.js and shaka-player in Chromium play a class of nginx over links that go bad; what liveqos says
//! of each from the access log is held against the page's own record. Run it with `cargo test --test players`; it needs nginx, ffmpeg,
//! chromium and `npm ci --prefix tests/players`, and some minutes.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

mod browser;
mod class;
#[path = "../real/daemon.rs"]
#[expect(dead_code, reason = "the tests with real servers ask it for more")]
mod daemon;
mod nginx;
mod packages;
mod page_server;
mod posts;
#[path = "../real/program.rs"]
#[expect(dead_code, reason = "the tests with real servers do more with programs")]
mod program;
mod relay;
mod scenarios;
mod snippet;
mod stage;
mod told;
mod truth;
#[path = "../real/wait.rs"]
mod wait;
mod webrtc;
