//! A receiver of webhooks that keeps when each class fired and resolved, by the program that sent it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::post;
use serde_json::Value;

use super::writer::now;

/// That one class fires or has resolved.
#[derive(Clone, Debug)]
pub(crate) struct Notification {
    /// `liveqos` or `prometheus`.
    pub(crate) who: String,
    pub(crate) session: String,
    pub(crate) fires: bool,
    /// When it was received, Unix ms.
    pub(crate) at: u64,
}

#[derive(Default)]
struct Inner {
    notifications: Vec<Notification>,
    standing: HashSet<(String, String)>,
}

/// The running receiver.
#[derive(Clone)]
pub(crate) struct Webhook {
    address: std::net::SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Webhook {
    pub(crate) async fn start() -> Self {
        let inner = Arc::<Mutex<Inner>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().route("/{who}", post(take)).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, inner }
    }

    /// Where `who` posts.
    pub(crate) fn url(&self, who: &str) -> String {
        format!("http://{}/{who}", self.address)
    }

    pub(crate) fn notifications(&self) -> Vec<Notification> {
        self.inner.lock().unwrap().notifications.clone()
    }
}

async fn take(State(inner): State<Arc<Mutex<Inner>>>, Path(who): Path<String>, Json(call): Json<Value>) {
    let at = now();
    let mut inner = inner.lock().unwrap();
    for alert in call["alerts"].as_array().into_iter().flatten() {
        let (labels, fires) = (&alert["labels"], alert["status"] == "firing");
        let (Some(session), true) = (labels["session_id"].as_str(), labels["alertname"] == "LiveStutterHigh") else {
            continue;
        };
        // A class without an id has its stream's key: application and name.
        let session = session.rsplit('/').next().unwrap_or(session);
        let key = (who.clone(), session.to_owned());
        let is_news = if fires { inner.standing.insert(key) } else { inner.standing.remove(&key) };
        if is_news {
            inner.notifications.push(Notification { who: who.clone(), session: session.to_owned(), fires, at });
        }
    }
}
