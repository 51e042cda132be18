//! `POST /backup`: a consistent copy of the relay's database while it runs.

use std::path::PathBuf;

use axum::extract::{Request, State};
use axum::response::Response;
use restante_mailbox::BackupError;
use restante_operators::{Refusal, RefusalBody, bad_request, conflict, json_body, shown};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::OperatorsState;

/// Bytes of a request's body: one path.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Where to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupBody {
    /// A file that is not there yet, by its absolute path on the relay's machine.
    #[schema(value_type = String)]
    file: PathBuf,
}

/// What was written.
#[derive(Serialize, ToSchema)]
pub(super) struct BackedUp {
    /// The file's size.
    bytes: u64,
}

/// Copies the database, as it stands at one moment, into a file that only the relay's user can read. The signing key and
/// the configuration are not in it.
#[utoipa::path(post, path = "/_restante/admin/v1/backup", tag = "relay", request_body = BackupBody,
    security(("token" = [])),
    responses((status = 200, body = BackedUp), (status = 400, body = RefusalBody), (status = 409, body = RefusalBody)))]
pub(super) async fn handle(
    State(state): State<OperatorsState>,
    request: Request,
) -> Result<Response, Refusal> {
    let BackupBody { file } = json_body(request, BODY_BYTES_MAX).await?;
    if !file.is_absolute() {
        return Err(bad_request(
            "file must be an absolute path: the relay runs in a folder of its own",
        ));
    }
    let backup = state.relay.stores.upkeep.backup(&file).await.map_err(refused)?;
    tracing::info!(file = %file.display(), bytes = backup.bytes, "backup written");
    Ok(shown(&BackedUp { bytes: backup.bytes }))
}

fn refused(error: BackupError) -> Refusal {
    tracing::warn!(error = &error as &dyn std::error::Error, "no backup");
    match error {
        BackupError::Exists { .. } | BackupError::UnderWay | BackupError::InMemory => {
            conflict(error.to_string())
        }
        BackupError::Unwritable { ref source, .. } => bad_request(format!("{error}: {source}")),
    }
}
