//! A media server's status page without a media server: one class that goes on at an even pace, and sources that never
//! answer.

use std::time::Instant;

use axum::routing::get;
use tokio::net::TcpListener;

/// Serves a status page of nginx-rtmp with a class of the key `live/STREAM`, 1.6 Mbit/s and three viewers. Gives its
/// URL.
pub(crate) async fn serve(stream: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/stat", listener.local_addr().unwrap());
    let (began, stream) = (Instant::now(), stream.to_owned());
    let router = axum::Router::new().route("/stat", get(async move || page(began, &stream)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Listens, takes every connection and never says a word. Gives its address.
pub(crate) async fn hang() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    address
}

fn page(began: Instant, stream: &str) -> String {
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or_default() + LIVED_MILLIS;
    let bytes = millis * BYTES_PER_MILLI;
    let client = |id: u32, more: &str| {
        format!(
            "<client><id>{id}</id><address>192.0.2.{id}</address><time>{millis}</time><dropped>0</dropped>{more}</client>"
        )
    };
    let clients = [client(1, "<publishing/>"), client(2, ""), client(3, ""), client(4, "")].concat();
    format!(
        "<rtmp><pid>1</pid><uptime>{}</uptime><server><application><name>live</name><live><stream><name>{stream}</name>\
         <time>{millis}</time><bytes_in>{bytes}</bytes_in><bytes_out>{}</bytes_out>{clients}<nclients>4</nclients><publishing/>\
         </stream></live></application></server></rtmp>",
        millis / 1_000,
        bytes * 3,
    )
}

const BYTES_PER_MILLI: u64 = 200;
/// As if it had run for a while, so that everything in it is older than the daemon.
const LIVED_MILLIS: u64 = 60_000;
