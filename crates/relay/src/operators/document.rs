//! The OpenAPI document of a relay's admin API.

use restante_operators::tidy;
use utoipa::OpenApi;

use super::{backup, envelopes, export, holding, import, invites, mailboxes, reload, status};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "restante relay",
        description = "The admin API of a relay. Times are milliseconds since 1970."
    ),
    paths(
        status::handle,
        backup::handle,
        reload::handle,
        mailboxes::list,
        mailboxes::show,
        envelopes::list,
        holding::hold,
        holding::release,
        holding::drop_mail,
        holding::evict,
        export::handle,
        import::handle,
        invites::list,
        invites::make,
        invites::revoke,
    )
)]
struct Document;

/// What the admin API takes and gives.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    tidy(Document::openapi())
}
