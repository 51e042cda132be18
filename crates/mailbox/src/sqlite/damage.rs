//! What lies on damaged pages can't even be removed, and takes all else of its commit with it.

use restante_federation_proto::ServerName;
use restante_sqlite::StoreError;

/// Has `remove` take all of `owned` out of `owner`'s mailbox in one commit or, where damage is in the way, each in a commit of its
/// own: what is damaged stays, and the rest goes. What was done, in turn.
pub(super) async fn all_or_each<K: Clone, T, F>(
    owner: &ServerName,
    owned: &[K],
    remove: impl Fn(Vec<K>) -> F,
) -> Result<Vec<T>, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match remove(owned.to_vec()).await {
        Err(error) if error.is_damage() => {}
        all => return Ok(vec![all?]),
    }
    let mut done = Vec::new();
    for one in owned {
        match remove(vec![one.clone()]).await {
            Ok(removed) => done.push(removed),
            Err(error) if error.is_damage() => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    mailbox = %owner,
                    error,
                    "a damaged envelope that its owner has can't be removed; check the disk"
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
