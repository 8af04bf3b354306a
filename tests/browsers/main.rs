//! The truth of real players: hls.js, dash.js and shaka-player in Chromium play a class of nginx over links that go
//! bad; the figures of liveqos from the access log are compared with the page's own record. So are those of the node's
//! script, with mpegts.js, a plain file and WebRTC. Run it with `cargo test --test browsers`; it
//! needs nginx, ffmpeg, chromium and `npm ci --prefix tests/browsers`, and some eight minutes.
//!
//! A page records the events of its media element (`waiting`, `playing`), when its scripts were notified of them, and
//! how far its position fell behind the clock. On a machine that keeps up the three agree to some hundredths of a
//! second. On one that does not they are a range, which is printed: the figures must lie in it or within a tenth of a
//! percentage point. A page whose range is wider than a quarter of a point was starved, and its player with it: its
//! figures must be within a point, and where fewer than three other pages are left the run proves nothing and fails.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

mod browser;
mod class;
mod measured;
mod nginx;
mod packages;
mod page_server;
mod posts;
mod relay;
mod scenarios;
mod snippet;
mod stage;
mod truth;
mod webrtc;
