//! Who is woken by alerts.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use serde_json::Value;

type Calls = Arc<Mutex<Vec<Value>>>;

/// A receiver of notices that keeps them.
pub(crate) struct Webhook {
    pub(crate) url: String,
    calls: Calls,
}

impl Webhook {
    pub(crate) async fn start() -> Self {
        let calls = Calls::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/alerts", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/alerts", post(take)).with_state(Arc::clone(&calls));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, calls }
    }

    /// The first call of this alert and status (`firing` or `resolved`).
    pub(crate) fn call(&self, alert: &str, status: &str) -> Option<Value> {
        let calls = self.calls.lock().unwrap();
        let is_it = |call: &&Value| call["commonLabels"]["alertname"] == alert && call["status"] == status;
        calls.iter().find(is_it).cloned()
    }

    /// The names of all alerts that were told.
    pub(crate) fn alerts(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let name = |call: &Value| format!("{} {}", call["commonLabels"]["alertname"], call["status"]).replace('"', "");
        calls.iter().map(name).collect()
    }
}

async fn take(State(calls): State<Calls>, Json(call): Json<Value>) {
    calls.lock().unwrap().push(call);
}
