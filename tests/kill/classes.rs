//! A media server's status page with many classes, each at its own even pace, until they are all over.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use axum::routing::get;
use tokio::net::TcpListener;

/// The page's server.
pub(crate) struct Classes {
    pub(crate) url: String,
    over: Arc<AtomicBool>,
    away: Arc<AtomicUsize>,
}

impl Classes {
    /// Serves nginx-rtmp's status page with `count` classes `live/class-N` of three viewers each.
    pub(crate) async fn serve(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/stat", listener.local_addr().unwrap());
        let (began, over, away) = (Instant::now(), Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (ended, gone) = (Arc::clone(&over), Arc::clone(&away));
        let page = async move || {
            let count = if ended.load(Ordering::Relaxed) { 0 } else { count };
            page(began, count, gone.load(Ordering::Relaxed))
        };
        let router = axum::Router::new().route("/stat", get(page));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, over, away }
    }

    /// The publishers of the first `count` classes are away, their viewers wait; those of the others are there.
    pub(crate) fn leave(&self, count: usize) {
        self.away.store(count, Ordering::Relaxed);
    }

    /// All classes end.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn page(began: Instant, count: usize, away: usize) -> String {
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap() + LIVED_MILLIS;
    let mut streams = String::new();
    for class in 0..count {
        let bytes = millis * (100 + class as u64);
        write!(
            streams,
            "<stream><name>class-{class}</name><time>{millis}</time><bytes_in>{bytes}</bytes_in><bytes_out>{}</bytes_out>",
            bytes * 3
        )
        .unwrap();
        for client in if class < away { 2..=4 } else { 1..=4 } {
            let publishing = if client == 1 { "<publishing/>" } else { "" };
            write!(
                streams,
                "<client><id>{}</id><address>192.0.2.{client}</address><time>{millis}</time><dropped>0</dropped>{publishing}</client>",
                class * 4 + client
            )
            .unwrap();
        }
        streams.push_str(if class < away {
            "<nclients>3</nclients></stream>"
        } else {
            "<nclients>4</nclients><publishing/></stream>"
        });
    }
    format!(
        "<rtmp><pid>1</pid><uptime>{}</uptime><server><application><name>live</name><live>{streams}</live></application></server></rtmp>",
        millis / 1_000
    )
}

/// As if they had run for a while, so that everything in the page is older than the daemon.
const LIVED_MILLIS: u64 = 60_000;
