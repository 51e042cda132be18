//! The OpenAPI document of a node's admin API.

use restante_operators::tidy;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{keys, membership, outbox, parked, relays, reload, status};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "restante node",
        description = "The admin API of a node. Times are milliseconds since 1970."
    ),
    modifiers(&MatrixTokens),
    paths(
        status::handle,
        reload::handle,
        relays::list,
        relays::add,
        relays::remove,
        membership::join,
        membership::leave,
        keys::list,
        keys::show,
        keys::trust,
        keys::forget,
        outbox::list,
        outbox::of_destination,
        parked::list,
        parked::show,
        parked::retry,
        parked::retry_all,
        parked::drop_one,
    )
)]
struct Document;

/// What opens `/relays` beside the operator's token.
struct MatrixTokens;

impl Modify for MatrixTokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The Matrix access token of an administrator of the homeserver"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("matrix", SecurityScheme::Http(token));
    }
}

/// What the admin API takes and gives.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    tidy(Document::openapi())
}
