//! How long requests take, by door, by route and by the first digit of their status.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds. From an answer out of memory to the longest wait for mail, which is 30 s.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// Durations of requests at one door; cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestDurations {
    door: &'static str,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
}

/// A route is one of the router's own patterns, so that nobody outside chooses a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    door: &'static str,
    route: String,
    status: &'static str,
}

impl RequestDurations {
    /// Registers them as `request_duration_seconds`, first of all for the door with this name.
    pub fn register(registry: &mut Registry, door: &'static str) -> Self {
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        let help = "How long requests took, until their answer's head was ready";
        registry.register("request_duration_seconds", help, durations.clone());
        Self { door, durations }
    }

    /// Those of another door, beside the others.
    #[must_use]
    pub fn at(&self, door: &'static str) -> Self {
        Self { door, durations: self.durations.clone() }
    }

    /// Middleware around a router's routes.
    pub async fn measure(State(this): State<Self>, request: Request, next: Next) -> Response {
        let route = request.extensions().get::<MatchedPath>();
        let route = route.map_or("unknown", MatchedPath::as_str).to_owned();
        let began = Instant::now();
        let response = next.run(request).await;
        let labels = Labels { door: this.door, route, status: class(response.status()) };
        this.durations.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
        response
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 | 2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
