//! The program beside real ones: nginx-rtmp, ffmpeg, Prometheus and Alertmanager of Debian, started here on reserved
//! ports and stopped again. Run it with `cargo test --test real`; a plain `cargo test` leaves it out, since it needs
//! those programs and some minutes.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

mod access_log;
mod alertmanager;
mod dead_daemon;
mod edge;
mod edge_link;
mod ffmpeg;
mod hanging_sources;
mod metrics_clean;
mod nginx;
mod nginx_class;
mod notify;
mod prometheus;
mod relay;
mod signals;
mod trace;
