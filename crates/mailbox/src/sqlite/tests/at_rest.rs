//! Bodies that are sealed on the disk.

use super::*;
use crate::Upkeep as _;
use crate::at_rest::Keys;

const A: &str = "a AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const B: &str = "b BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=";
/// Another key with the id of the first.
const OTHER_A: &str = "a BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=";

impl Folder {
    fn try_open_with(&self, lines: &[&str]) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_sealed(&self.path(), &Keys::parse(&lines.join("\n")).unwrap())
    }

    fn open_with(&self, lines: &[&str]) -> SqliteStore {
        self.try_open_with(lines).unwrap()
    }

    /// Whether any file of the database holds `words`.
    fn holds(&self, words: &str) -> bool {
        ["sqlite", "sqlite-wal"].iter().any(|extension| {
            let file = std::fs::read(self.path().with_extension(extension)).unwrap_or_default();
            file.windows(words.len()).any(|window| window == words.as_bytes())
        })
    }
}

/// Mail whose content says its number in words that nothing compresses.
fn letter(number: &str) -> Deposit {
    let content = format!(r#"{{"the letter":"{number}"}}"#);
    Deposit { content: content.into(), ..mail(number) }
}

async fn leave_letters(store: &SqliteStore, numbers: &[&str]) -> Vec<EntryId> {
    let mut ids = Vec::new();
    for number in numbers {
        match store.deposit(letter(number), ROOMY).await.unwrap() {
            Deposited::Stored(id) => ids.push(id),
            other => panic!("not stored: {other:?}"),
        }
    }
    ids
}

async fn letters(store: &SqliteStore) -> Vec<Deposit> {
    let collected = store.collect(&recipient(), None, EVERYTHING).await.unwrap();
    assert_eq!(collected.quarantined, []);
    collected.envelopes.into_iter().map(|envelope| envelope.deposit).collect()
}

/// Seals all envelopes anew, a few at a time, and tells how many were.
async fn reseal_all(store: &SqliteStore) -> u64 {
    let mut resealed = 0;
    loop {
        let step = store.reseal(2).await.unwrap();
        resealed += step.resealed;
        if step.looked_at == 0 {
            return resealed;
        }
    }
}

async fn keys_in_use(store: &SqliteStore) -> Vec<(String, u64)> {
    let totals = store.totals().await.unwrap();
    totals.keys.into_iter().map(|key| (key.id, key.envelopes)).collect()
}

fn key(id: &str, envelopes: u64) -> (String, u64) {
    (id.to_owned(), envelopes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_store_keeps_every_promise() {
    let folder = Folder::new();
    conformance::run_all(async || {
        let number = folder.stores.fetch_add(1, Ordering::Relaxed);
        let path = folder.folder.path().join(format!("{number}.sqlite"));
        Arc::new(SqliteStore::open_sealed(&path, &Keys::parse(A).unwrap()).unwrap()) as _
    })
    .await;
}

#[tokio::test]
async fn what_is_sealed_is_handed_out_and_not_found_on_the_disk() {
    let (sealed, plain) = (Folder::new(), Folder::new());
    let (store, open) = (sealed.open_with(&[A]), plain.open());
    leave_letters(&store, &["1", "2"]).await;
    leave_letters(&open, &["1", "2"]).await;

    assert_eq!(letters(&store).await, [letter("1"), letter("2")]);
    assert!(plain.holds("the letter"));
    assert!(!sealed.holds("the letter"));
    assert_eq!(keys_in_use(&store).await, [key("a", 2)]);
    drop(store);
    assert_eq!(letters(&sealed.open_with(&[A])).await, [letter("1"), letter("2")]);
}

#[tokio::test]
async fn a_key_that_is_missing_or_another_is_refused_at_the_start_and_nothing_is_lost() {
    let folder = Folder::new();
    let store = folder.open_with(&[A]);
    leave_letters(&store, &["1"]).await;
    drop(store);

    let told = |opened: Result<SqliteStore, OpenError>| opened.unwrap_err().to_string();
    assert!(
        told(SqliteStore::open(&folder.path())).contains("1 envelopes are sealed with the key a")
    );
    assert!(told(folder.try_open_with(&[B])).contains("sealed with the key a"));
    assert!(told(folder.try_open_with(&[OTHER_A])).contains("not the one that sealed"));

    assert_eq!(letters(&folder.open_with(&[B, A])).await, [letter("1")]);
}

#[tokio::test]
async fn a_key_that_its_operator_gave_up_sets_its_mail_aside_and_the_rest_flows() {
    let folder = Folder::new();
    let store = folder.open_with(&[A]);
    let ids = leave_letters(&store, &["1"]).await;
    drop(store);

    let store = folder.open_with(&[B, "a lost"]);
    leave_letters(&store, &["2"]).await;
    let collected = store.collect(&recipient(), None, EVERYTHING).await.unwrap();

    assert_eq!(collected.quarantined, ids);
    assert_eq!(collected.envelopes.len(), 1);
    assert_eq!(summary_of(&store).await.quarantined, 1);
    assert_eq!(keys_in_use(&store).await, [key("a", 0), key("b", 1)]);
}

#[tokio::test]
async fn keys_are_rotated_while_mail_comes_and_goes_and_the_old_one_may_leave() {
    let folder = Folder::new();
    let store = folder.open();
    leave_letters(&store, &["0"]).await;
    drop(store);
    let store = folder.open_with(&[A]);
    let ids = leave_letters(&store, &["1", "2", "3", "4"]).await;
    drop(store);

    let store = folder.open_with(&[B, A]);
    leave_letters(&store, &["5"]).await;
    let two = Resealed { looked_at: 2, resealed: 2, ..Resealed::default() };
    assert_eq!(store.reseal(2).await.unwrap(), two);
    // Half done, and started again.
    drop(store);
    let store = folder.open_with(&[B, A]);
    assert_eq!(keys_in_use(&store).await, [key("a", 3), key("b", 3)]);
    assert_eq!(letters(&store).await, ["0", "1", "2", "3", "4", "5"].map(letter));
    acknowledge(&store, &ids[3..]).await;
    assert_eq!(reseal_all(&store).await, 2);
    assert_eq!(reseal_all(&store).await, 0);

    assert_eq!(keys_in_use(&store).await, [key("a", 0), key("b", 5)]);
    drop(store);
    let store = folder.open_with(&[B]);
    assert_eq!(letters(&store).await, ["0", "1", "2", "3", "5"].map(letter));
    assert!(matches!(store.deposit(letter("0"), ROOMY).await.unwrap(), Deposited::Duplicate(_)));
}

#[tokio::test]
async fn sealing_may_end() {
    let folder = Folder::new();
    let store = folder.open_with(&[A]);
    leave_letters(&store, &["1", "2"]).await;
    drop(store);

    let store = folder.open_with(&["plain", A]);
    assert_eq!(reseal_all(&store).await, 2);
    drop(store);

    assert_eq!(letters(&folder.open()).await, ["1", "2"].map(letter));
}

#[tokio::test]
async fn a_sealed_body_that_somebody_changed_is_set_aside_even_with_its_checksum_mended() {
    let folder = Folder::new();
    let store = folder.open_with(&[A]);
    let ids = leave_letters(&store, &["1", "2", "3"]).await;
    // The body of one under the words of another, as whoever writes to the disk can do.
    let outside = Connection::open(folder.path()).unwrap();
    let body: Vec<u8> = outside
        .query_row("SELECT body FROM envelopes WHERE txn_id = '1'", [], |row| row.get(0))
        .unwrap();
    let deposit = letter("2");
    let stored = body::Stored {
        origin: deposit.origin.as_str().as_bytes(),
        txn_id: deposit.txn_id.as_bytes(),
        content_hash: &deposit.content_hash.0,
        deposited_at: 1000,
        expires_at: 1001,
        content_bytes: deposit.content.len() as i64,
        members_bytes: deposit.members.len() as i64,
        coding: 0,
        seal: 1,
        body: &body,
        onward: 0,
    };
    let checksum = stored.checksum(&deposit.recipient);
    let sql = "UPDATE envelopes SET body = ?1, checksum = ?2 WHERE txn_id = '2'";
    assert_eq!(outside.execute(sql, rusqlite::params![body, checksum]).unwrap(), 1);

    let (whole, quarantined) = collect(&store).await;

    assert_eq!((whole, quarantined), (vec!["1".to_owned(), "3".to_owned()], vec![ids[1]]));
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_sealed_anew_and_all_of_it_is_later() {
    let folder = Folder::new();
    let store = folder.open();
    leave_letters(&store, &["1", "2", "3"]).await;
    drop(store);
    let store = folder.open_with(&[A]);
    store.reserve.release();

    let refused = store.reseal(10).await;

    assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
    assert_eq!(keys_in_use(&store).await, [key("a", 0)]);
    // Takes the reserve back.
    store.expire(due(0), 10).await.unwrap();
    let all = Resealed { looked_at: 3, resealed: 3, ..Resealed::default() };
    assert_eq!(store.reseal(10).await.unwrap(), all);
}

#[tokio::test]
async fn a_step_of_sealing_anew_holds_no_more_bytes_than_it_may() {
    let folder = Folder::new();
    let store = folder.open();
    let mut noise = vec![0; 5 << 20];
    rand::fill(&mut noise[..]);
    for number in ["1", "2", "3"] {
        let large = Deposit { content: noise.clone().into(), ..mail(number) };
        store.deposit(large, ROOMY).await.unwrap();
    }
    drop(store);
    let store = folder.open_with(&[A]);

    let mut looked_at = Vec::new();
    for _ in 0..3 {
        looked_at.push(store.reseal(10).await.unwrap().looked_at);
    }

    assert_eq!(looked_at, [2, 1, 0]);
}

#[tokio::test]
async fn sealing_anew_sets_aside_what_is_damaged_and_goes_on() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave_letters(&store, &["1", "2", "3"]).await;
    folder.damage(ids[1], "body = zeroblob(length(body))");
    drop(store);

    let store = folder.open_with(&[A]);
    assert_eq!(reseal_all(&store).await, 2);

    let mailbox = summary_of(&store).await;
    assert_eq!((mailbox.depth.count, mailbox.quarantined), (2, 1));
    assert_eq!(letters(&store).await, ["1", "3"].map(letter));
}

#[tokio::test]
async fn sealing_anew_goes_on_past_a_damaged_page_and_tells_how_much_is_left() {
    const LETTERS: usize = 200;
    let folder = Folder::new();
    let store = folder.open();
    let numbers: Vec<String> = (0..LETTERS).map(|number| format!("no {number:03}")).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    leave_letters(&store, &numbers).await;
    drop(store);
    // The page in the middle of the table, in each of its copies, becomes one of no kind that SQLite knows.
    let mut file = std::fs::read(folder.path()).unwrap();
    let page_bytes = usize::from(u16::from_be_bytes([file[16], file[17]]));
    let words = br#"{"the letter":"no 100"}"#;
    let found: Vec<_> =
        file.windows(words.len()).enumerate().filter(|(_, window)| window == words).collect();
    let pages: Vec<_> = found.into_iter().map(|(at, _)| at / page_bytes * page_bytes).collect();
    assert!(!pages.is_empty());
    pages.into_iter().for_each(|page| file[page] = 0xff);
    std::fs::write(folder.path(), file).unwrap();

    let store = folder.open_with(&[A]);
    let mut all = Resealed::default();
    loop {
        let step = store.reseal(10).await.unwrap();
        all.looked_at += step.looked_at;
        all.resealed += step.resealed;
        all.left += step.left;
        all.quarantined += step.quarantined;
        if step.looked_at == 0 {
            break;
        }
    }

    assert_eq!(all.looked_at, LETTERS as u64);
    // Those on the page, and those beside it whose page has no room for a longer body.
    assert!((1..LETTERS as u64 / 2).contains(&all.left), "{all:?}");
    assert_eq!((all.quarantined, all.resealed), (0, LETTERS as u64 - all.left));
    assert_eq!(keys_in_use(&store).await, [key("a", all.resealed)]);
}
