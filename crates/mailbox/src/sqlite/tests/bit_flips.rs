//! One wrong bit: in a stored body the envelope is set aside and the rest flows; anywhere else nothing panics, and no mail
//! is handed out that was not left.

use std::path::Path;

use restante_sqlite_faults::{
    Campaign, Disk, Fault, Lasts, Operation, Tally, Trouble, flip_bit, lose_page,
};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{
    Accounts as _, DuplicateKey, HandedOn, MailName, OnwardMail as _, StoredEnvelope, Whereabouts,
};

const RECIPIENTS: [&str; 3] = ["b.example", "c.example", "d.example"];

/// Mail of noise, which is stored as it is: short, and long enough for several pages.
fn noise(number: u8) -> Deposit {
    let mut content = Vec::new();
    for block in 0..if number.is_multiple_of(3) { 400_u32 } else { 20 } {
        content.extend(Sha256::digest([&[number][..], &block.to_be_bytes()].concat()));
    }
    Deposit {
        recipient: RECIPIENTS[usize::from(number) % 3].parse().unwrap(),
        origin: "a.example".parse().unwrap(),
        txn_id: number.to_string(),
        content_hash: ContentHash(Sha256::digest(&content).into()),
        content: content.into(),
        members: Bytes::new(),
        deposited_at: Timestamp::from_millis(1000 + u64::from(number)),
        expires_at: Timestamp::from_millis(1000 + u64::from(number)),
        onward: Onward::No,
    }
}

/// A closed database with mail in three mailboxes, some of it acknowledged.
async fn filled() -> (Folder, Vec<Deposit>) {
    let folder = Folder::new();
    let store = folder.open();
    let mail: Vec<_> = (0..24).map(noise).collect();
    for deposit in &mail {
        store.deposit(deposit.clone(), ROOMY).await.unwrap();
    }
    let first = store.collect(&mail[0].recipient, None, EVERYTHING).await.unwrap().envelopes[0].id;
    let acknowledgement = Acknowledgement { id: first, content_hash: None };
    store.acknowledge(&mail[0].recipient, &[acknowledgement]).await.unwrap();
    (folder, mail)
}

/// Flips a bit of `part` wherever it lies in `file`: SQLite leaves old copies behind when it moves rows.
fn flip_in(file: &Path, part: &[u8], seed: u64) {
    let bytes = std::fs::read(file).unwrap();
    let copies = bytes.windows(part.len()).enumerate().filter(|(_, window)| *window == part);
    for (at, _) in copies {
        flip_bit(file, at..at + part.len(), seed).unwrap();
    }
}

#[tokio::test]
async fn a_bit_flipped_in_a_body_sets_that_envelope_aside_and_no_other() {
    let (folder, mail) = filled().await;
    // On the row's own page, and on the pages behind it.
    for (number, from) in [(1, 100), (4, 300), (6, 100), (6, 9_000), (9, 12_000)] {
        let damaged = Folder::new();
        std::fs::copy(folder.path(), damaged.path()).unwrap();
        flip_in(&damaged.path(), &mail[number].content[from..from + 64], from as u64);
        let store = damaged.open();

        let mut quarantined = 0;
        let mut whole = Vec::new();
        for recipient in RECIPIENTS {
            let recipient = recipient.parse().unwrap();
            let collected = store.collect(&recipient, None, EVERYTHING).await.unwrap();
            quarantined += collected.quarantined.len();
            whole.extend(collected.envelopes.into_iter().map(|envelope| envelope.deposit));
        }

        // Number 0 was acknowledged.
        let mut rest: Vec<_> = mail[1..].iter().filter(|other| **other != mail[number]).collect();
        rest.sort_by_key(|deposit| (deposit.recipient.clone(), deposit.deposited_at));
        let numbers = |mail: Vec<&Deposit>| mail.iter().map(|mail| mail.txn_id.clone()).collect();
        let whole: Vec<String> = numbers(whole.iter().collect());
        assert_eq!((whole, quarantined), (numbers(rest), 1), "{number}");
    }
}

#[tokio::test]
async fn envelopes_whose_pages_are_lost_hold_up_neither_mail_nor_expiry() {
    for sort in ["overflow", "leaf"] {
        let (folder, mail) = filled().await;
        lose_page(&folder.path(), "envelopes", sort).unwrap();

        let store = folder.open();

        let mut whole = 0;
        for recipient in RECIPIENTS {
            let recipient = recipient.parse().unwrap();
            let collected = store.collect(&recipient, None, EVERYTHING).await.unwrap();
            whole += collected.envelopes.len();
        }
        // One was acknowledged.
        let lost = mail.len() - 1 - whole;
        assert!((1..10).contains(&lost), "{sort}: {lost}");
        let mut all = Expired::default();
        loop {
            // What stays is first of all, and more than a step takes.
            let step = store.expire(due(u64::MAX), 1).await.unwrap();
            if step == Expired::default() {
                break;
            }
            all.envelopes += step.envelopes;
            all.remembered += step.remembered;
        }
        // What lies beside a lost page may have to stay, since removing it would move rows there.
        let expired = all.envelopes as usize;
        assert!((whole / 2..=whole).contains(&expired), "{sort}: {expired} of {whole}");
        assert_eq!(all.remembered, 1, "{sort}");
        leave(&store, &["after"]).await;
    }
}

#[tokio::test]
async fn lost_names_of_acknowledged_mail_stop_no_expiry() {
    let (folder, mail) = filled().await;
    lose_page(&folder.path(), "acknowledged", "leaf").unwrap();
    let store = folder.open();
    let expired = store.expire(due(u64::MAX), 100).await.unwrap();
    assert_eq!((expired.envelopes as usize, expired.remembered), (mail.len() - 1, 0));
}

#[tokio::test]
async fn lost_pages_under_the_oldest_mail_lock_nobody_out() {
    let (folder, mail) = filled().await;
    lose_page(&folder.path(), "envelopes", "leaf").unwrap();
    let store = folder.open();
    let of_a = Selection::Origin("a.example".parse().unwrap());
    let (mut whole, mut held, mut dropped) = (0, 0, 0);
    for recipient in RECIPIENTS {
        let recipient = recipient.parse().unwrap();
        whole += store.collect(&recipient, None, EVERYTHING).await.unwrap().envelopes.len();

        let (depth, _) = store.standing(&recipient).await.unwrap();
        let lines = store.envelopes(&recipient, None, 100).await.unwrap();

        assert_eq!(store.summary(&recipient).await.unwrap().unwrap().depth, depth);
        assert_eq!(lines.len() as u64, depth.count, "an operator sees the damaged ones, too");
        held += lines.len();
        let now = Timestamp::from_millis(9000);
        dropped += store.drop_mail(&recipient, of_a.clone(), now).await.unwrap();
        dropped += store.drop_mail(&recipient, Selection::All, now).await.unwrap();
    }
    assert_eq!(store.list(None, 10).await.unwrap().len(), RECIPIENTS.len());
    assert!(whole < held && held == mail.len() - 1);
    assert!((whole / 2..=whole).contains(&(dropped as usize)), "{dropped} of {whole}");
}

#[tokio::test]
async fn lost_pages_under_mail_to_be_delivered_stop_no_other_mail_from_going() {
    for sort in ["overflow", "leaf"] {
        let folder = Folder::new();
        let store = folder.open();
        let origins: [ServerName; 2] = ["a.example", "z.example"].map(|name| name.parse().unwrap());
        for number in 0..24 {
            let origin = origins[usize::from(number % 2)].clone();
            let deposit =
                Deposit { recipient: recipient(), origin, onward: Onward::Wanted, ..noise(number) };
            store.deposit(deposit, ROOMY).await.unwrap();
        }
        drop(store);
        lose_page(&folder.path(), "envelopes", sort).unwrap();
        let store = folder.open();
        let mut delivered = Vec::new();
        for origin in &origins {
            let epoch = Timestamp::EPOCH;
            while let Some(next) = store.first_onward(&recipient(), origin, epoch).await.unwrap() {
                let way = HandedOn::Delivered;
                assert!(store.hand_on(&recipient(), next.id, way).await.unwrap(), "{sort}");
                delivered.push(next.deposit.origin);
            }
        }
        assert!((15..24).contains(&delivered.len()), "{sort}: {}", delivered.len());
        assert!(origins.iter().all(|origin| delivered.contains(origin)), "{sort}");
    }
}

#[tokio::test]
async fn lost_pages_under_what_its_owner_acknowledges_keep_nothing_else_there() {
    for sort in ["overflow", "leaf"] {
        let (folder, mail) = filled().await;
        let store = folder.open();
        let mut held = Vec::new();
        for recipient in RECIPIENTS {
            let recipient: ServerName = recipient.parse().unwrap();
            let collected = store.collect(&recipient, None, EVERYTHING).await.unwrap();
            let of =
                |envelope: &StoredEnvelope| Acknowledgement { id: envelope.id, content_hash: None };
            held.push((recipient, collected.envelopes.iter().map(of).collect::<Vec<_>>()));
        }
        drop(store);
        lose_page(&folder.path(), "envelopes", sort).unwrap();

        let store = folder.open();
        let mut removed = 0;
        for (recipient, acknowledgements) in &held {
            let done = store.acknowledge(recipient, acknowledgements).await.unwrap();
            removed += done.removed as usize;
        }
        let all = mail.len() - 1;
        assert!((all / 2..all).contains(&removed), "{sort}: {removed} of {all}");
    }
}

#[tokio::test]
async fn lost_pages_under_what_its_owner_has_or_its_sender_asks_for_hide_nothing_else() {
    for (sort, is_readable) in [("overflow", true), ("leaf", false)] {
        let (folder, mail) = filled().await;
        lose_page(&folder.path(), "envelopes", sort).unwrap();
        let store = folder.open();

        let (mut held, mut removed) = (0, 0);
        for recipient in RECIPIENTS {
            let recipient: ServerName = recipient.parse().unwrap();
            let own = mail[1..].iter().filter(|mail| mail.recipient == recipient);
            let name = |mail: &Deposit| MailName {
                origin: mail.origin.clone(),
                txn_id: mail.txn_id.clone(),
                content_hash: mail.content_hash,
            };
            let names: Vec<_> = own.map(name).collect();
            let asked = names.iter().map(|name| (recipient.clone(), name.clone()));
            let asked: Vec<_> = asked.collect();
            let found = store.whereabouts(&asked, Timestamp::EPOCH).await.unwrap();
            held += found.iter().filter(|one| **one == Whereabouts::Held).count();
            let now = Timestamp::from_millis(1000);
            let keys = names.iter().map(|name| DuplicateKey::named(&recipient, name));
            let keys: Vec<_> = keys.collect();
            let done = store.acknowledge_copies(&recipient, &keys, now).await.unwrap();
            removed += done.removed as usize;
        }

        let all = mail.len() - 1;
        assert!((all / 2..all).contains(&removed), "{sort}: {removed} of {all}");
        // What lies beside a lost page can be read, and perhaps not be taken away.
        let known = if is_readable { all..=all } else { removed..=all - 1 };
        assert!(known.contains(&held), "{sort}: {held} of {all} held, {removed} removed");
    }
}

#[tokio::test]
async fn mail_that_an_index_misses_is_found_all_the_same() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2", "3"]).await;
    drop(store);
    let outside = || Connection::open(folder.path()).unwrap();
    let index = "SELECT rootpage, sql FROM sqlite_schema WHERE name = 'envelopes_in_order'";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (root, sql): (i64, String) = outside().query_row(index, [], read).unwrap();
    let hide =
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'envelopes_in_order'";
    outside().execute_batch(hide).unwrap();
    let moved = outside().execute("UPDATE envelopes SET row = row + 100 WHERE txn_id = '2'", []);
    assert_eq!(moved.unwrap(), 1);
    let show = outside();
    show.execute_batch("PRAGMA writable_schema = ON").unwrap();
    let sql = rusqlite::params![root, sql];
    let insert =
        "INSERT INTO sqlite_schema VALUES ('index', 'envelopes_in_order', 'envelopes', ?1, ?2)";
    show.execute(insert, sql).unwrap();
    drop(show);

    let store = folder.open();

    assert_eq!(collect(&store).await, (["1", "2", "3"].map(str::to_owned).to_vec(), vec![]));
    assert_eq!(acknowledge(&store, &ids[..1]).await, 1);
    assert_eq!(collect(&store).await.0, ["2", "3"]);
}

/// What became of wrong bits.
#[derive(Debug, Default)]
struct Outcomes {
    /// The store did not start.
    refused: u32,
    /// A call failed, or an envelope was set aside.
    told: u32,
    /// Mail was missing, and nothing told so.
    missing: u32,
    /// All was as before.
    harmless: u32,
}

/// Does all that a relay does. An `Err` is mail that nobody left, or a panic.
async fn use_all(path: &Path, mail: &[Deposit], outcomes: &mut Outcomes) -> Result<(), String> {
    let Ok(store) = SqliteStore::open(path) else {
        outcomes.refused += 1;
        return Ok(());
    };
    let (mut errors, mut quarantined, mut whole) = (0, 0, 0);
    for recipient in RECIPIENTS {
        let recipient: ServerName = recipient.parse().unwrap();
        let collected = store.collect(&recipient, None, EVERYTHING).await;
        errors += failed(&collected)?;
        let collected = collected.unwrap_or_default();
        quarantined += collected.quarantined.len();
        for envelope in &collected.envelopes {
            if envelope.deposit.recipient != recipient
                || !mail.iter().any(|mail| is(envelope, mail))
            {
                return Err(format!("{recipient} was given {envelope:?}"));
            }
        }
        whole += collected.envelopes.len();
        let named = collected.envelopes.iter().take(2);
        let named = named.map(|held| Acknowledgement { id: held.id, content_hash: None });
        let named: Vec<_> = named.collect();
        errors += failed(&store.acknowledge(&recipient, &named).await)?;
        errors += failed(&store.depth(&recipient).await)?;
    }
    errors += failed(&store.deposit(noise(100), ROOMY).await)?;
    errors += failed(&store.list(None, 10).await)?;
    errors += failed(&store.expire(due(1010), 100).await)?;
    errors += failed(&store.health().await)?;
    if errors > 0 || quarantined > 0 {
        outcomes.told += 1;
    } else if whole + 1 < mail.len() {
        outcomes.missing += 1;
    } else {
        outcomes.harmless += 1;
    }
    Ok(())
}

/// Whether what came is that mail. When it expires is not handed out, and no checksum guards it.
fn is(envelope: &StoredEnvelope, mail: &Deposit) -> bool {
    let expires_at = mail.expires_at;
    Deposit { expires_at, ..envelope.deposit.clone() } == *mail
}

/// Whether a call failed; by an error, not by a panic.
fn failed<T>(answer: &Result<T, StoreError>) -> Result<u32, String> {
    match answer {
        Ok(_) => Ok(0),
        Err(error) if format!("{error:?}").contains("Panicked") => Err(format!("{error:?}")),
        Err(_) => Ok(1),
    }
}

#[test]
fn disk_bits_flipped_anywhere_in_the_file_hand_out_no_wrong_mail() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (folder, mail) = runtime.block_on(filled());
    let mut outcomes = Outcomes::default();
    Campaign::of("disk", 150).run("flipped bits at rest", |seed| {
        let damaged = Folder::new();
        std::fs::copy(folder.path(), damaged.path()).unwrap();
        flip_bit(&damaged.path(), 0..usize::MAX, seed).unwrap();
        runtime.block_on(use_all(&damaged.path(), &mail, &mut outcomes))?;
        Ok(Tally { faults: 1, ..Tally::default() })
    });
    println!("{outcomes:?}");
}

#[test]
fn disk_bits_flipped_while_reading_hand_out_no_wrong_mail() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (folder, mail) = runtime.block_on(filled());
    let mut outcomes = Outcomes::default();
    Campaign::of("disk", 150).run("flipped bits while reading", |seed| {
        let damaged = Folder::new();
        let disk = Disk::watch(damaged.folder.path(), seed).unwrap();
        std::fs::copy(folder.path(), damaged.path()).unwrap();
        disk.fail(Fault {
            operation: Some(Operation::Read),
            number: 1 + seed % 100,
            trouble: Trouble::FlippedBit,
            lasts: Lasts::Once,
        });
        runtime.block_on(use_all(&damaged.path(), &mail, &mut outcomes))?;
        Ok(Tally { faults: disk.failed(), ..Tally::default() })
    });
    println!("{outcomes:?}");
}

#[tokio::test]
async fn a_disk_that_turned_read_only_refuses_deposits_and_hands_out_mail() {
    let folder = Folder::new();
    let disk = Disk::watch(folder.folder.path(), 0).unwrap();
    let store = folder.open();
    leave(&store, &["1", "2"]).await;

    disk.make_read_only();
    assert!(store.deposit(mail("3"), ROOMY).await.is_err());
    assert_eq!(collect(&store).await.0, ["1", "2"]);
    drop(store);
    let refused = SqliteStore::open(&folder.path()).unwrap_err();
    assert!(refused.to_string().contains("this user may write there"), "{refused}");

    disk.heal();
    let store = folder.open();
    assert_eq!(collect(&store).await.0, ["1", "2"]);
    leave(&store, &["3"]).await;
}
