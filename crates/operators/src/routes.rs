//! Routes that remember what they are, so that a test can hold them against the OpenAPI document.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post, put};
use http::Method;

/// One method of one path, below the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The method.
    pub method: Method,
    /// The path with its parameters, `/mailboxes/{server}`.
    pub path: String,
}

/// Routes of an admin API whose handlers share a state `S`.
pub struct Routes<S> {
    router: Router<S>,
    endpoints: Vec<Endpoint>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    pub fn new() -> Self {
        Self { router: Router::new(), endpoints: Vec::new() }
    }

    /// With `GET path`.
    #[must_use]
    pub fn get<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.with(Method::GET, path, get(handler))
    }

    /// With `POST path`.
    #[must_use]
    pub fn post<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.with(Method::POST, path, post(handler))
    }

    /// With `PUT path`.
    #[must_use]
    pub fn put<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.with(Method::PUT, path, put(handler))
    }

    /// With `DELETE path`.
    #[must_use]
    pub fn delete<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.with(Method::DELETE, path, delete(handler))
    }

    /// The same routes with the state that their handlers share.
    pub fn with_state(self, state: S) -> Routes<()> {
        Routes { router: self.router.with_state(state), endpoints: self.endpoints }
    }

    /// What they are.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    pub(crate) fn into_parts(self) -> (Router<S>, Vec<Endpoint>) {
        (self.router, self.endpoints)
    }

    fn with(mut self, method: Method, path: &'static str, handler: MethodRouter<S>) -> Self {
        self.endpoints.push(Endpoint { method, path: path.to_owned() });
        Self { router: self.router.route(path, handler), endpoints: self.endpoints }
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}
