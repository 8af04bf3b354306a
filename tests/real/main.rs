//! The program against the real ones: nginx-rtmp, ffmpeg and Prometheus of Debian, started here on free ports and
//! stopped again. Run it with `cargo test --test real`; a plain `cargo test` leaves it out, since it needs those
//! programs and some minutes.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

mod access_log;
mod alertmanager;
mod daemon;
#[path = "../support/dashboard.rs"]
mod dashboard;
mod dead_daemon;
mod edge;
mod edge_link;
mod ffmpeg;
mod hanging_sources;
mod metrics_clean;
mod nginx;
mod nginx_class;
#[path = "../support/node_certificates.rs"]
mod node_certificates;
#[path = "../support/notices.rs"]
mod notices;
mod notify;
mod program;
mod prometheus;
#[path = "../otlp/receiver.rs"]
#[expect(dead_code, reason = "the tests of export also script its failures")]
mod receiver;
mod relay;
mod signals;
mod stat_server;
mod trace;
mod wait;
mod webhook;
