//! The status page of nginx-rtmp (`rtmp_stat`) without a media server: classes at an even pace with three viewers each,
//! until they end; and a source that never responds.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use axum::routing::get;
use tokio::net::TcpListener;

use super::ports::LOOPBACK;

/// The page's server.
#[derive(Debug)]
pub struct StatServer {
    /// Its status page.
    pub url: String,
    ended: Arc<AtomicBool>,
    away: Arc<AtomicUsize>,
}

impl StatServer {
    /// Serves one class `live/STREAM` of 1.6 Mbit/s.
    pub async fn one(stream: &str) -> Self {
        Self::start(vec![(stream.to_owned(), BYTES_PER_MILLI)]).await
    }

    /// Serves `count` classes `live/class-N`, each at a rate of its own.
    pub async fn many(count: usize) -> Self {
        Self::start((0..count).map(|class| (format!("class-{class}"), 100 + class as u64)).collect()).await
    }

    async fn start(streams: Vec<(String, u64)>) -> Self {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let url = format!("http://{}/stat", listener.local_addr().unwrap());
        let (began, ended, away) = (Instant::now(), Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (is_over, are_away) = (Arc::clone(&ended), Arc::clone(&away));
        let page = async move || {
            let streams = if is_over.load(Ordering::Relaxed) { &[] } else { &streams[..] };
            page(began, streams, are_away.load(Ordering::Relaxed))
        };
        let router = axum::Router::new().route("/stat", get(page));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, ended, away }
    }

    /// The publishers of the first `count` classes are away while their viewers wait; those of the others are there.
    pub fn take_away(&self, count: usize) {
        self.away.store(count, Ordering::Relaxed);
    }

    /// All classes end.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Listens, accepts every connection and never responds. Returns its address.
pub async fn hang() -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    address
}

fn page(began: Instant, streams: &[(String, u64)], away: usize) -> String {
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap() + LIVED_MILLIS;
    let mut text = String::new();
    for (class, (name, bytes_per_milli)) in streams.iter().enumerate() {
        let bytes = millis * bytes_per_milli;
        write!(
            text,
            "<stream><name>{name}</name><time>{millis}</time><bytes_in>{bytes}</bytes_in><bytes_out>{}</bytes_out>",
            bytes * 3
        )
        .unwrap();
        for client in if class < away { 2..=4 } else { 1..=4 } {
            let publishing = if client == 1 { "<publishing/>" } else { "" };
            write!(
                text,
                "<client><id>{}</id><address>192.0.2.{client}</address><time>{millis}</time><dropped>0</dropped>\
                 {publishing}</client>",
                class * 4 + client
            )
            .unwrap();
        }
        text.push_str(if class < away {
            "<nclients>3</nclients></stream>"
        } else {
            "<nclients>4</nclients><publishing/></stream>"
        });
    }
    format!(
        "<rtmp><pid>1</pid><uptime>{}</uptime><server><application><name>live</name><live>{text}</live></application>\
         </server></rtmp>",
        millis / 1_000
    )
}

const BYTES_PER_MILLI: u64 = 200;
/// As if it had run for a while, so that everything in the page is older than the daemon.
const LIVED_MILLIS: u64 = 60_000;
