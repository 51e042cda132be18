//! What lies on damaged pages can't even be removed or marked, and takes all else of its commit with it.

use restante_federation_proto::ServerName;
use restante_sqlite::StoreError;

/// Has `change` change `all`, mail of or for `server`, in one commit or, where damage is in the way, each in a commit of its own: what is
/// damaged beyond changing stays as it is. What was done, in turn.
pub(super) async fn all_or_each<K: Clone, T, F>(
    server: &ServerName,
    all: &[K],
    change: impl Fn(Vec<K>) -> F,
) -> Result<Vec<T>, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let stays = |_: &K, error: &StoreError| {
        let error = error as &dyn std::error::Error;
        tracing::error!(
            %server,
            error,
            "an envelope on a damaged page, or beside one, can't be removed or set aside; check the disk"
        );
    };
    let done = restante_sqlite::all_or_each(all, change, stays).await?;
    Ok(done.into_iter().flatten().collect())
}
