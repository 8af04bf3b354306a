//! The truth of real players: hls.js, dash.js and shaka-player in Chromium play a class of nginx over links that go
//! bad; what liveqos says of each from the access log is held against the page's own record. The node's script is held
//! against it too, with mpegts.js, a plain file and WebRTC beside them. Run it with `cargo test --test browsers`; it
//! needs nginx, ffmpeg, chromium and `npm ci --prefix tests/browsers`, and some eight minutes.
//!
//! A page's record is what its media element said (`waiting`, `playing`), when its scripts heard of it, and how far its
//! position fell behind the clock. On a machine that keeps up the three are the same to some hundredths of a second. On
//! one that does not they are a range, which the lines name (`elsewise`): what is told must lie in it or within a tenth
//! of a point. A page whose range is wider than a quarter of a point was starved, and its player with it: it is held to
//! a point, and where fewer than three pages are left the run shows nothing and fails.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

mod browser;
mod class;
mod nginx;
mod packages;
mod page_server;
mod posts;
mod relay;
mod scenarios;
mod snippet;
mod stage;
mod told;
mod truth;
mod webrtc;
