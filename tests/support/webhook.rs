//! A receiver of notifications over HTTP, as the webhook of an alerting program.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use serde_json::Value;

use super::ports::LOOPBACK;

type Calls = Arc<Mutex<Vec<Value>>>;

/// A receiver that keeps all notifications.
#[derive(Debug)]
pub struct Webhook {
    /// Where it is called.
    pub url: String,
    calls: Calls,
}

impl Webhook {
    /// Starts it.
    pub async fn start() -> Self {
        let calls = Calls::default();
        let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
        let url = format!("http://{}/alerts", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/alerts", post(take)).with_state(Arc::clone(&calls));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, calls }
    }

    /// The first call of this alert and status (`firing` or `resolved`).
    #[must_use]
    pub fn call(&self, alert: &str, status: &str) -> Option<Value> {
        let calls = self.calls.lock().unwrap();
        let is_it = |call: &&Value| call["commonLabels"]["alertname"] == alert && call["status"] == status;
        calls.iter().find(is_it).cloned()
    }

    /// Name and status of all notifications so far.
    #[must_use]
    pub fn alerts(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let name = |call: &Value| format!("{} {}", call["commonLabels"]["alertname"], call["status"]).replace('"', "");
        calls.iter().map(name).collect()
    }
}

async fn take(State(calls): State<Calls>, Json(call): Json<Value>) {
    calls.lock().unwrap().push(call);
}
