//! What lies on damaged pages can't even be removed or marked, and takes all else of its commit with it.

use restante_federation_proto::ServerName;
use restante_sqlite::{StoreError, despite_others};

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
    match change(all.to_vec()).await {
        Err(error) if error.is_damage() => {}
        done => return Ok(vec![done?]),
    }
    let mut done = Vec::new();
    for one in all {
        match despite_others(|| change(vec![one.clone()])).await {
            Ok(one) => done.push(one),
            Err(error) if error.is_damage() => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    %server,
                    error,
                    "an envelope on a damaged page, or beside one, can't be removed or set aside; check the disk"
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
