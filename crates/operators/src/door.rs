//! All routes of an operators' door.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError};
use utoipa::openapi::OpenApi;

use crate::answer::{Refusal, json};
use crate::bearer::{Gate, OtherTokens};
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::routes::Routes;
use crate::token::Token;
use crate::{bearer, metrics, openapi, readiness};

/// What the admin API's paths begin with.
pub const BASE: &str = "/_restante/admin/v1";

/// What an operators' door shows.
pub struct Door {
    /// What the admin API asks for.
    pub token: Token,
    /// Whether the program can do its work.
    pub readiness: Arc<Readiness>,
    /// What it has counted.
    pub metrics: Arc<Metrics>,
    /// The admin API; paths are below [`BASE`].
    pub routes: Routes<()>,
    /// Its description.
    pub document: OpenApi,
}

impl Door {
    /// All routes. The admin API needs the token; the rest is for monitors, which hold none.
    pub fn router(self) -> Router {
        self.router_admitting(None)
    }

    /// The same, where tokens of others open a part of the admin API.
    pub fn router_admitting(self, others: Option<Arc<dyn OtherTokens>>) -> Router {
        let document = openapi::json(self.document);
        let (admin, _) = self.routes.into_parts();
        let gate = Gate { token: self.token, others };
        let admin = admin.route_layer(middleware::from_fn_with_state(gate, bearer::authenticate));
        Router::new()
            .route("/health", get(alive))
            .route("/ready", get(readiness::handle).with_state(self.readiness))
            .route("/metrics", get(metrics::handle).with_state(self.metrics))
            .route(&format!("{BASE}/openapi.json"), get(openapi::handle).with_state(document))
            .nest(BASE, admin)
            .fallback(unknown_endpoint)
            .method_not_allowed_fallback(unknown_method)
    }
}

/// `GET /health`: whoever gets this answer knows that the program runs.
async fn alive(State(()): State<()>) -> Response {
    json(StatusCode::OK, "{\"alive\":true}")
}

async fn unknown_endpoint() -> Refusal {
    let text = format!("There is no such endpoint; {BASE}/openapi.json lists them");
    Refusal(MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, text))
}

async fn unknown_method() -> Refusal {
    let text = format!("This endpoint does not take that method; see {BASE}/openapi.json");
    Refusal(MatrixError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unrecognized, text))
}
