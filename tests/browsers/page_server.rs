//! The host of the test's pages: serves them and the players, keeps what each page records of itself and asks it to
//! act.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::task::AbortHandle;

/// What a page recorded so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Player, its version and the browser, once the player runs.
    pub(crate) info: Option<Value>,
    /// `{t, heard, ev, ...}` in their order.
    pub(crate) events: Vec<Value>,
    /// Wall time, playing position, whether paused, ready state, buffer ahead (s), whether hidden; each 100 ms.
    pub(crate) rows: Vec<Value>,
    asked: Vec<&'static str>,
}

/// The running server; ends when dropped.
pub(crate) struct PageServer {
    /// Where it listens.
    pub(crate) port: u16,
    records: Arc<Mutex<BTreeMap<String, Record>>>,
    task: AbortHandle,
}

#[derive(Clone)]
struct Shared {
    pages: PathBuf,
    packages: PathBuf,
    records: Arc<Mutex<BTreeMap<String, Record>>>,
}

impl PageServer {
    /// Serves the files of `pages`, and the npm packages of `packages` below `/npm`.
    pub(crate) async fn start(pages: PathBuf, packages: PathBuf) -> Self {
        let records: Arc<Mutex<BTreeMap<String, Record>>> = Arc::default();
        let shared = Shared { pages, packages, records: Arc::clone(&records) };
        let router = Router::new()
            .route("/record/{name}", post(take))
            .route("/npm/{*path}", get(package))
            .route("/{page}", get(page))
            .layer(DefaultBodyLimit::max(MAX_RECORD))
            .with_state(shared);
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { port, records, task: task.abort_handle() }
    }

    /// The origin for the page of this number: each has its own, so that the browser gives each a process of its own
    /// and none waits for another's scripts.
    pub(crate) fn origin(&self, number: usize) -> String {
        format!("http://127.0.0.{}:{}", number + 2, self.port)
    }

    /// What the page of this name recorded so far.
    pub(crate) fn record(&self, name: &str) -> Record {
        self.records.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    /// Asks a page to do something; the page gets it in the response to its next record, within a quarter of a second.
    pub(crate) fn ask(&self, name: &str, action: &'static str) {
        self.records.lock().unwrap().entry(name.to_owned()).or_default().asked.push(action);
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Record {
    /// When an event of this name was first, wall-clock seconds.
    pub(crate) fn first(&self, name: &str) -> Option<f64> {
        self.events.iter().find(|event| event["ev"] == name)?["t"].as_f64()
    }

    /// The events at the instants at which the page's scripts were notified.
    pub(crate) fn notified(&self) -> Vec<Value> {
        let mut events = self.events.clone();
        for event in &mut events {
            event["t"] = event["heard"].take();
        }
        events
    }

    /// Errors of the page or the player.
    pub(crate) fn errors(&self) -> Vec<String> {
        let wrong = |event: &&Value| matches!(event["ev"].as_str(), Some("page-error" | "error"));
        self.events.iter().filter(wrong).map(Value::to_string).collect()
    }
}

async fn take(State(shared): State<Shared>, Path(name): Path<String>, body: Bytes) -> Response {
    let Ok(mut more) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut records = shared.records.lock().unwrap();
    let record = records.entry(name).or_default();
    if let (Value::Array(events), Value::Array(rows)) = (more["events"].take(), more["rows"].take()) {
        record.events.extend(events);
        record.rows.extend(rows);
    }
    if more["info"].is_object() {
        record.info = Some(more["info"].take());
    }
    axum::Json(std::mem::take(&mut record.asked)).into_response()
}

async fn page(State(shared): State<Shared>, Path(page): Path<String>) -> Response {
    file(&shared.pages.join(page))
}

async fn package(State(shared): State<Shared>, Path(path): Path<String>) -> Response {
    file(&shared.packages.join(path))
}

fn file(path: &std::path::Path) -> Response {
    let kind = match path.extension().and_then(|ending| ending.to_str()) {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        _ => "application/octet-stream",
    };
    match std::fs::read(path) {
        Ok(bytes) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

const MAX_RECORD: usize = 16 << 20;
