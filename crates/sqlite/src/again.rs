//! Telling one's own damage from another's.

use crate::StoreError;

/// Writes that met a damaged page take those with them that share their commit; so many times in a row that is no chance.
const ATTEMPTS: u32 = 3;

/// Makes the same write again and again until it is done, fails for another reason than damage, or has met damage so often that it is its own.
/// Each attempt is a write of the same.
pub async fn despite_others<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(error) if error.is_damage() => {}
            done => return done,
        }
    }
    attempt().await
}

/// Has `change` change `all` in one commit or, where damage is in the way, each in a commit of its own: what is damaged beyond changing
/// stays as it is, and `stays` is told. What was done, in turn: one thing for all, or one for each, `None` for what stays.
pub async fn all_or_each<K: Clone, T, F>(
    all: &[K],
    change: impl Fn(Vec<K>) -> F,
    stays: impl Fn(&K, &StoreError),
) -> Result<Vec<Option<T>>, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match change(all.to_vec()).await {
        Err(error) if error.is_damage() => {}
        done => return Ok(vec![Some(done?)]),
    }
    let mut done = Vec::with_capacity(all.len());
    for one in all {
        done.push(match despite_others(|| change(vec![one.clone()])).await {
            Err(error) if error.is_damage() => {
                stays(one, &error);
                None
            }
            changed => Some(changed?),
        });
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn failure(code: i32) -> StoreError {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into()
    }

    #[tokio::test]
    async fn what_others_brought_passes_and_what_is_its_own_is_told() {
        let mut attempts = 0;
        let second = despite_others(|| {
            attempts += 1;
            let is_first = attempts == 1;
            async move { if is_first { Err(failure(ffi::SQLITE_CORRUPT)) } else { Ok(()) } }
        });
        second.await.unwrap();
        assert_eq!(attempts, 2);
        let mut attempts = 0;
        let own = despite_others(|| {
            attempts += 1;
            async { Err::<(), _>(failure(ffi::SQLITE_CORRUPT)) }
        });
        assert!(own.await.unwrap_err().is_damage());
        assert_eq!(attempts, ATTEMPTS);
        let mut attempts = 0;
        let full = despite_others(|| {
            attempts += 1;
            async { Err::<(), _>(failure(ffi::SQLITE_FULL)) }
        });
        assert!(matches!(full.await, Err(StoreError::DiskFull)));
        assert_eq!(attempts, 1);
    }
}
