//! `GET /metrics`: the Prometheus text format, or `OpenMetrics` with exemplars where the scraper accepts it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus::proto::MetricFamily;

use crate::engine::Snapshot;
use crate::metrics::collector::exemplars;
use crate::metrics::exposition::{encode, finish};
use crate::metrics::{Form, SessionSeries};

/// What the page shows.
pub(crate) struct MetricsPage {
    /// All metrics except those of single classes.
    pub registry: prometheus::Registry,
    /// The metrics of single classes.
    pub session_series: Arc<SessionSeries>,
    /// Where exemplars are taken from.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
}

impl MetricsPage {
    /// All metrics, those of single classes included.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        [self.registry.gather(), self.session_series.families()].concat()
    }
}

/// `GET /metrics`
pub(super) async fn page(State(metrics): State<Arc<MetricsPage>>, headers: HeaderMap) -> Response {
    let form = Form::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default());
    let families = metrics.registry.gather();
    let mut page = String::with_capacity(INITIAL_CAPACITY);
    let snapshot = metrics.snapshot.load();
    encode(form, &families, |name| exemplars(name, &snapshot, &families), &mut page);
    metrics.session_series.write(form, &mut page);
    finish(form, &mut page);
    ([(header::CONTENT_TYPE, form.content_type())], page).into_response()
}

/// Bytes reserved for a page.
const INITIAL_CAPACITY: usize = 64 * 1024;
