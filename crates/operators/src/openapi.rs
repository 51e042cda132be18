//! `GET …/openapi.json`: what the admin API takes and gives.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, PathItem};

use crate::answer::json as json_answer;
use crate::door::BASE;
use crate::routes::Endpoint;

/// A refusal, as documents describe it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Refusal)]
pub struct RefusalBody {
    /// A Matrix error code.
    pub errcode: String,
    /// What happened and what to do next.
    pub error: String,
}

/// The same document with what every admin API of ours has in common: the token, and paths below [`BASE`].
pub fn tidy(mut document: OpenApi) -> OpenApi {
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The text in the file admin-token in the data folder"))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme("token", SecurityScheme::Http(token));
    document
}

/// The document as it is sent.
pub(crate) fn json(document: OpenApi) -> Arc<str> {
    serde_json::to_string(&document).expect("an OpenAPI document is JSON").into()
}

pub(crate) async fn handle(State(document): State<Arc<str>>) -> Response {
    json_answer(StatusCode::OK, document.as_bytes().to_vec())
}

/// Endpoints that the document leaves out, and those that it has and the routes have not.
pub fn undocumented(routes: &[Endpoint], document: &OpenApi) -> Vec<Endpoint> {
    let documented: Vec<Endpoint> = document
        .paths
        .paths
        .iter()
        .flat_map(|(path, item)| {
            let path = path.strip_prefix(BASE).unwrap_or(path).to_owned();
            methods(item).map(move |method| Endpoint { method, path: path.clone() })
        })
        .collect();
    let only_routed = routes.iter().filter(|endpoint| !documented.contains(endpoint));
    let only_documented = documented.iter().filter(|endpoint| !routes.contains(endpoint));
    only_routed.chain(only_documented).cloned().collect()
}

fn methods(item: &PathItem) -> impl Iterator<Item = Method> {
    let of = |method, present: bool| present.then_some(method);
    [
        of(Method::GET, item.get.is_some()),
        of(Method::POST, item.post.is_some()),
        of(Method::PUT, item.put.is_some()),
        of(Method::DELETE, item.delete.is_some()),
    ]
    .into_iter()
    .flatten()
}
