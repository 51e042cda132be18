//! The OpenAPI document of a node's admin API.

use restante_operators::tidy;
use utoipa::OpenApi;

use super::{keys, membership, parked, relays, reload, status};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "restante node",
        description = "The admin API of a node. Times are milliseconds since 1970."
    ),
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
        parked::list,
        parked::show,
        parked::retry,
        parked::retry_all,
        parked::drop_one,
    )
)]
struct Document;

/// What the admin API takes and gives.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    tidy(Document::openapi())
}
