//! Databases that earlier programs wrote.

use std::path::Path;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::Database;
use restante_sqlite_faults::fixtures;

use crate::relay_book::DepartureState;
use crate::relay_records::LearnedFrom;
use crate::store::inbox::parked;
use crate::store::ledger::{Ledger, Transaction};
use crate::store::outbox::overview;
use crate::store::{
    SCHEMA, backlog, correspondents, departures, destinations, held, holes, inbox, losses, outbox,
    own_record, passed, receipts_due, relay_records, relays, rooms, trust,
};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_100_000);

fn name(name: &str) -> ServerName {
    name.parse().unwrap()
}

/// In `tests/fixtures`: something in every table that there was; from one schema to the next nothing is taken out.
#[tokio::test]
async fn every_schema_so_far_is_taken_over_and_loses_nothing() {
    let migrations: Vec<_> = SCHEMA.migrations.iter().map(|step| step.sql).collect();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for fixture in fixtures(&kept, &migrations).unwrap() {
        println!("schema {}", fixture.version);
        let folder = tempfile::tempdir().unwrap();
        fixture.write(&folder.path().join("node.sqlite")).unwrap();

        let database = crate::store::open(folder.path()).unwrap();

        ledger_goes_on(&database).await;
        if fixture.version >= 2 {
            inbox_goes_on(&database).await;
        }
        if fixture.version >= 3 {
            events_are_kept(&database).await;
        }
        if fixture.version >= 4 {
            backlog_goes_on(&database).await;
        }
        if fixture.version >= 6 {
            mailboxes_go_on(&database).await;
        }
        if fixture.version >= 7 {
            records_are_known(&database).await;
        }
        if fixture.version >= 8 {
            the_outbox_goes_on(&database, fixture.version >= 11).await;
        }
        if fixture.version >= 9 {
            correspondents_are_known(&database).await;
        }
        if fixture.version >= 10 {
            what_waits_is_told_later(&database).await;
        }
    }
}

async fn mailboxes_go_on(database: &Database) {
    let departures = database.read(departures::load).await.unwrap();
    assert_eq!(departures[&name("left.test")].state, DepartureState::Told);
    let lost = losses::all(database).await.unwrap();
    assert_eq!((lost.len(), lost[0].amount.count), (1, 3));
    assert!(database.read(own_record::load).await.unwrap().is_some());
}

async fn records_are_known(database: &Database) {
    let known = database.read(|connection| relay_records::load(connection, &name("b.test"))).await;
    let known = known.unwrap().unwrap();
    assert_eq!(known.record.relays[0].server_name, name("relay.test"));
    assert_eq!(known.learned_from, LearnedFrom::Relay(name("r.test")));
}

async fn correspondents_are_known(database: &Database) {
    let met = |connection: &_| correspondents::met_since(connection, Timestamp::from_millis(0), 10);
    let met = database.read(met).await.unwrap();
    assert_eq!(met, [(name("b.test"), Timestamp::from_millis(1_700_000_017_000))]);
    let woken_at = database.read(correspondents::last_woken_at).await.unwrap();
    assert_eq!(woken_at, Some(Timestamp::from_millis(1_700_000_018_000)));
}

async fn what_waits_is_told_later(database: &Database) {
    let lines = overview::lines(database, name("b.test"), overview::Which::All, (0, 9)).await;
    assert!(lines.unwrap()[0].waits_since.is_some());
    let (waiting, _) = backlog::of_room(database, "!room:a.test".to_owned()).await.unwrap();
    let told = async || {
        let batch = receipts_due::batch(database, name("c.test")).await.unwrap().receipt;
        batch.deliveries.into_iter().any(|delivery| delivery.pdus.contains_key("$waiting"))
    };
    assert!(!told().await);
    backlog::confirmed(database, waiting[0].id, NOW).await.unwrap();
    assert!(told().await);
}

async fn the_outbox_goes_on(database: &Database, has_capsule: bool) {
    let left = outbox::load(database, name("b.test"), 2).await.unwrap().unwrap();
    assert_eq!(left.copy.content().unwrap(), br#"{"edus":[],"pdus":[]}"#.to_vec());
    assert_eq!(left.copy.capsule().is_some(), has_capsule);
    let lines = overview::lines(database, name("b.test"), overview::Which::All, (0, 9)).await;
    let holder = &lines.unwrap()[0].holders[0];
    assert_eq!(holder.said.as_deref(), Some("held"));
    assert!(holder.receipt.is_some());
    assert_eq!(overview::totals(database).await.unwrap().of("copies"), 1);
    let batch = receipts_due::batch(database, name("c.test")).await.unwrap().receipt;
    assert_eq!((batch.deliveries.len(), batch.missing[0].from), (1, 17));
    assert_eq!(trust::all(database).await.unwrap()[0].relay, name("bad.test"));
}

async fn ledger_goes_on(database: &Database) {
    let ledger = Ledger::open(database.clone(), "another".to_owned()).await.unwrap();
    assert_eq!(ledger.stream(), "stream-of-a");
    let enter = async |destination, txn_id: &str| {
        let (destination, txn_id) = (name(destination), txn_id.to_owned());
        let transaction = Transaction { destination, txn_id, content_sha256: [0; 32] };
        ledger.enter(transaction, NOW).await.unwrap()
    };
    let left = enter("b.test", "101").await;
    assert_eq!((left.place.seq, left.delivered_at), (2, None));
    assert_eq!(left.holders, [name("relay.test")].into());
    assert!(enter("b.test", "100").await.delivered_at.is_some());
    assert_eq!(enter("b.test", "102").await.place.seq, 3);
    assert_eq!(enter("c.test", "1").await.place.seq, 8);
    assert_eq!(destinations::load(database).await.unwrap()[&name("b.test")].failures, 3);
    assert_eq!(database.read(relays::load).await.unwrap().len(), 1);
}

async fn inbox_goes_on(database: &Database) {
    let (rows, totals) = inbox::list(database, 100).await.unwrap();
    let states: Vec<_> = rows.iter().map(|row| (&*row.txn_id, &*row.state)).collect();
    let expected = [
        ("1", "delivered"),
        ("2", "waiting"),
        ("3", "parked"),
        ("4", "unverified"),
        ("5", "forged"),
    ];
    assert_eq!(states, expected);
    for total in [("confirmed", 9), ("parked", 1)] {
        assert!(totals.contains(&(total.0.to_owned(), total.1)), "{totals:?}");
    }
    let heads = inbox::heads(database, name("c.test")).await.unwrap();
    let head = inbox::load(database, heads[0].id).await.unwrap().unwrap();
    assert_eq!((heads.len(), head.content), (1, br#"{"pdus":[2]}"#.to_vec().into()));
    assert_eq!(heads[0].place.as_ref().and_then(|place| place.done_through), Some(1));
    assert_eq!(inbox::delivered(database).await.unwrap().len(), 1);
    assert_eq!(inbox::unverified(database, name("e.test"), 0, 9).await.unwrap().len(), 1);
    let set_aside = parked::parked_one(database, 3).await.unwrap().unwrap();
    assert_eq!(set_aside.content, br#"{"edus":[3]}"#.to_vec());
    let versions = rooms::versions(database, ["!room:a.test".to_owned()].into()).await.unwrap();
    assert_eq!(versions["!room:a.test"], "11");
    assert_eq!(number(database, "SELECT count(*) FROM seen").await, 3);
}

async fn events_are_kept(database: &Database) {
    let known = passed::known(database, name("b.test"), ["$passed".to_owned()].into());
    assert_eq!(known.await.unwrap().len(), 1);
    let event = held::event(database, "$held".to_owned()).await.unwrap().unwrap();
    assert_eq!(event.pdu, br#"{"type":"m.held"}"#.to_vec());
    held::forget(database, event.room_id, vec![event.event_id]).await.unwrap();
    assert_eq!(number(database, "SELECT count + bytes FROM held_totals").await, 0);
}

async fn backlog_goes_on(database: &Database) {
    let (waiting, _) = backlog::of_room(database, "!room:a.test".to_owned()).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!((&*waiting[0].event_id, waiting[0].attempts), ("$waiting", 1));
    assert_eq!(backlog::unconfirmed(database).await.unwrap()[0].event.1, "$sent");
    let parked = backlog::parked::parked(database, None, 9).await.unwrap();
    assert_eq!(parked[0].reason, "denied by the server ACL");
    let hole = holes::list(database, 9).await.unwrap().remove(0);
    assert_eq!((hole.first, hole.last), (17, 19));
}

async fn number(database: &Database, sql: &'static str) -> i64 {
    database.read(|connection| connection.query_row(sql, [], |row| row.get(0))).await.unwrap()
}
