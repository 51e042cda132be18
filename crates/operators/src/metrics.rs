//! `GET /metrics`: what a program has counted, as Prometheus text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use restante_federation_proto::Timestamp;

/// Values that are looked up when somebody asks.
#[async_trait]
pub trait Gauges: Send + Sync + 'static {
    /// Sets them to what is so now. One that can't be told keeps its last value.
    async fn measure(&self);
}

/// What a program exports. A value, so that many programs fit into one process.
pub struct Metrics {
    registry: Registry,
    gauges: Vec<Arc<dyn Gauges>>,
}

impl Metrics {
    /// The metrics in `registry`, which has no prefix of its own, some of which are `gauges`. `started_at` is when the program started.
    pub fn of(mut registry: Registry, gauges: Vec<Arc<dyn Gauges>>, started_at: Timestamp) -> Self {
        let start: Gauge<f64, AtomicU64> = Gauge::default();
        start.set(started_at.as_millis() as f64 / 1000.0);
        let help = "When the program started, in seconds since 1970";
        registry.register("process_start_time_seconds", help, start);
        Self { registry, gauges }
    }

    /// All of them, as Prometheus text.
    pub async fn text(&self) -> String {
        for gauges in &self.gauges {
            gauges.measure().await;
        }
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }
}

/// Sets a counter whose value is kept elsewhere, such as in a database.
pub fn set_total(counter: &Counter, total: u64) {
    counter.inner().store(total, Ordering::Relaxed);
}

pub(crate) async fn handle(State(metrics): State<Arc<Metrics>>) -> Response {
    let kind = HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
    ([(CONTENT_TYPE, kind)], metrics.text().await).into_response()
}
