//! One wrong bit anywhere in the file: calls fail or do not, and nothing panics.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use restante_federation_proto::Timestamp;
use restante_sqlite::StoreError;
use restante_sqlite_faults::{Campaign, Tally, flip_bit};

use super::call::{Call, Stores};

/// Calls that fill the database, and calls that meet the wrong bit.
const CALLS: usize = 80;

fn calls(seed: u64) -> impl Iterator<Item = Call> {
    let mut rng = StdRng::seed_from_u64(seed);
    let now = |number: usize| Timestamp::from_millis(1_700_000_000_000 + number as u64);
    (0..CALLS).map(move |number| Call::draw(&mut rng, now(number)))
}

/// Makes all calls of the database in `folder`; how many failed.
async fn use_all(folder: &std::path::Path, seed: u64) -> Result<u64, String> {
    let Ok(stores) = Stores::open(folder).await else { return Ok(1) };
    let mut failed = 0;
    for call in calls(seed) {
        match call.on(&stores).await {
            Ok(_) => {}
            Err(StoreError::Panicked) => return Err(format!("{} panicked", call.name)),
            Err(_) => failed += 1,
        }
    }
    Ok(failed)
}

#[test]
fn disk_bits_flipped_anywhere_in_the_file_make_nothing_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(runtime.block_on(use_all(whole.path(), 0)), Ok(0));
    let mut refused = 0;
    Campaign::of("disk", 40).run("flipped bits at rest", |seed| {
        let damaged = tempfile::tempdir().unwrap();
        let file = damaged.path().join("node.sqlite");
        std::fs::copy(whole.path().join("node.sqlite"), &file).unwrap();
        flip_bit(&file, 0..usize::MAX, seed).unwrap();
        let failed = runtime.block_on(use_all(damaged.path(), 1 + seed))?;
        refused += u64::from(failed > 0);
        Ok(Tally { faults: 1, ..Tally::default() })
    });
    println!("{refused} were told");
}
