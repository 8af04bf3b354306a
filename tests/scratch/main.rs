//! scratch
use axum::{
    Router,
    http::header,
    response::Html,
    routing::{get, post},
};
use liveqos::demo::*;
use liveqos_core::time::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
fn clock() -> Timestamp {
    static E: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    Timestamp::from_secs(1_700_000_000) + E.get_or_init(Instant::now).elapsed()
}
#[tokio::test(flavor = "multi_thread")]
async fn serve() {
    let class = Arc::new(Class::start(ClassOptions { viewers: 1, seed: 1, clock }).await.unwrap());
    let guests = Arc::new(std::sync::Mutex::new(Vec::new()));
    let g2 = guests.clone();
    let app = Router::new()
        .route("/", get(|| async { Html(std::fs::read_to_string("tests/scratch/page.html").unwrap()) }))
        .route("/liveqos-player.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript")], std::fs::read_to_string("probes/player/liveqos-player.js").unwrap().replace("let gap = ", "let gap = ").replace("settle(isFrozen", "if (gap > 150 || counted) scope.dbg(now, gap, count, isFrozen, counted, gaps.length); settle(isFrozen").replace("lastAt = counted = 0;", "{ if (lastAt) scope.dbg(\"reset\", now, counted); lastAt = counted = 0; }")) }))
        .route("/log", post(|b: String| async move { eprintln!("{b}"); }))
        .route("/beacon", post(|b: String| async move { eprintln!("BEACON {b}"); axum::http::StatusCode::NO_CONTENT }))
        .route("/whep", post(move |b: String| { let class = class.clone(); let guests = guests.clone(); async move {
            let guest = class.invite(&b).await.unwrap();
            let a = guest.answer().to_owned();
            guests.lock().unwrap().push(guest);
            a
        }}));
    let l = tokio::net::TcpListener::bind("127.0.0.1:18480").await.unwrap();
    let s = tokio::spawn(async move { axum::serve(l, app).await.unwrap() });
    let sleep = |s| tokio::time::sleep(Duration::from_secs(s));
    let set = |i: Impairment| {
        eprintln!("IMPAIR {i:?}");
        for g in g2.lock().unwrap().iter() {
            g.impair(i);
        }
    };
    sleep(13).await;
    set(Impairment { rate_bits_per_second: Some(250_000), queue_bytes: 16_000, ..Default::default() });
    sleep(8).await;
    set(Impairment::default());
    sleep(8).await;
    set(Impairment { loss_ratio: 1.0, ..Default::default() });
    sleep(7).await;
    set(Impairment::default());
    sleep(14).await;
    for g in g2.lock().unwrap().iter() {
        eprintln!("{:?}", g.link());
    }
    s.abort();
}
