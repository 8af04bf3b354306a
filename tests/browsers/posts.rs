//! How the script posts to a node that fails, asks it to wait, and recovers, and when the page is left. Nothing is
//! lost, nothing counts twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use liveqos::players::SCRIPT;
use liveqos_testkit::wait;
use serde_json::Value;

use super::browser::Browser;
use super::packages;
use super::page_server::PageServer;
use super::snippet::folder;

#[derive(Clone, Debug)]
struct Post {
    at: Instant,
    path: String,
    method: Method,
    kind: String,
    token: String,
    body: String,
    answered: StatusCode,
}

type Posts = Arc<Mutex<Vec<Post>>>;

#[tokio::test(flavor = "multi_thread")]
async fn every_second_is_reported_once_whatever_the_node_responds() {
    let _alone = wait::alone().await;
    let folder = folder("posts");
    let posts = Posts::default();
    let node = serve(Arc::clone(&posts)).await;
    let pages = PageServer::start(packages::folder().join("pages"), packages::folder()).await;
    let url = format!("http://127.0.0.1:{}/posts.html?name=posts&node=http://127.0.0.1:{node}", pages.port);
    let _browser = Browser::open(&folder, "chromium", &url);
    let count = |path: &str| posts.lock().unwrap().iter().filter(|post| post.path == path).count();
    wait::until("a node that works again", Duration::from_mins(1), async || {
        (count("trouble") >= TROUBLE.len() + 4).then_some(())
    })
    .await;
    pages.ask("posts", "leave");
    let before = count("trouble");
    wait::until("the last report", Duration::from_secs(10), async || (count("trouble") > before).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let record = pages.record("posts");
    let left = record.first("left").unwrap();
    let posts = posts.lock().unwrap().clone();
    for post in &posts {
        assert_eq!((&post.method, post.kind.as_str()), (&Method::POST, "text/plain;charset=UTF-8"), "no preflight");
    }
    let gone: Vec<_> = posts.iter().filter(|post| post.path == "gone").collect();
    assert_eq!(gone.len(), 1, "410 is final: {gone:?}");
    assert_eq!(gone[0].token, "token=old");

    let trouble: Vec<_> = posts.iter().filter(|post| post.path == "trouble").collect();
    let mut bodies: BTreeMap<u64, &str> = BTreeMap::new();
    let mut exposure = 0.0;
    for post in &trouble {
        let report: Value = serde_json::from_str(&post.body).unwrap();
        match bodies.insert(report["sequence"].as_u64().unwrap(), &post.body) {
            Some(before) => assert_eq!(before, post.body, "a report that comes again is the same"),
            None => exposure += report["exposure"].as_f64().unwrap(),
        }
    }
    assert_eq!(bodies.keys().copied().collect::<Vec<_>>(), (0..bodies.len() as u64).collect::<Vec<_>>());
    let watched = left - record.first("playing").unwrap();
    eprintln!("{} posts, {} reports, {exposure:.3} of {watched:.3} s", trouble.len(), bodies.len());
    assert!((exposure - watched).abs() < 0.2, "{exposure} of {watched} s");
    let is_fresh = |two: &[&Post]| two[0].token != two[1].token;
    // The page that leaves has no time to ask for another.
    let asked = trouble.iter().rposition(|post| post.answered != StatusCode::NO_CONTENT).unwrap();
    assert!(trouble[..=asked].windows(2).all(is_fresh), "a token is asked for with each post");
    for two in trouble.windows(2).filter(|two| two[0].answered == StatusCode::TOO_MANY_REQUESTS) {
        let waited = two[1].at - two[0].at;
        assert!(waited >= PATIENCE, "it was asked to wait for {PATIENCE:?} and came after {waited:?}");
    }
}

async fn serve(posts: Posts) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script =
        || async { ([(header::CONTENT_TYPE, "text/javascript"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], SCRIPT) };
    let router = Router::new().route("/liveqos-player.js", get(script)).route("/{path}", any(answer)).with_state(posts);
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    port
}

#[expect(clippy::too_many_arguments, reason = "the parts of a request, as axum hands them over")]
async fn answer(
    State(posts): State<Posts>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
    body: String,
) -> Response {
    let mut posts = posts.lock().unwrap();
    let number = posts.iter().filter(|post| post.path == path).count();
    let answered = match path.as_str() {
        "gone" => StatusCode::GONE,
        _ => TROUBLE.get(number).copied().unwrap_or(StatusCode::NO_CONTENT),
    };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    posts.push(Post { at: Instant::now(), path, method, kind, token: query.unwrap_or_default(), body, answered });
    let patience = PATIENCE.as_secs().to_string();
    let mut headers = vec![
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned()),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Retry-After".to_owned()),
    ];
    if answered == StatusCode::TOO_MANY_REQUESTS {
        headers.push((header::RETRY_AFTER, patience));
    }
    let mut response = answered.into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// What the node answers at first.
const TROUBLE: [StatusCode; 3] =
    [StatusCode::NO_CONTENT, StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
const PATIENCE: Duration = Duration::from_secs(5);
