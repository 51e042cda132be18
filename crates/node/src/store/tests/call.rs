//! What a node asks of its database, drawn at random: few names, so that calls meet each other's rows.

mod outbox;

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use rand::rngs::StdRng;
use restante_federation::Peer;
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::{RecordedRelay, RelayRecord};
use restante_sqlite::rusqlite::Connection;
use restante_sqlite::{Database, Limits, StoreError};

use crate::inbox::mail::{Mail, Standing, StreamPlace};
use crate::inbox::transaction::Pdu;
use crate::outbox::KeptCopy;
use crate::own_record::OwnRecord;
use crate::relay_records::{LearnedFrom, Recorded};
use crate::store::backlog::{self, Aside, Fate};
use crate::store::held::{self, HeldEvent, HeldSource};
use crate::store::holes::{self, Hole};
use crate::store::inbox::{self, Settled, Settling};
use crate::store::ledger::{Ledger, Transaction};
use crate::store::outbox::{Kept, Word};
use crate::store::passed;
use crate::store::relay_records;
use crate::store::rooms;
use crate::store::seen::{self, TransactionKey};
use crate::test_site::identity;

type Running = Pin<Box<dyn Future<Output = Result<String, StoreError>>>>;

/// One call, which can be made of several databases.
pub(super) struct Call {
    /// Which.
    pub(super) name: String,
    run: Box<dyn Fn(Stores) -> Running>,
}

/// What is called.
#[derive(Debug, Clone)]
pub(super) struct Stores {
    pub(super) database: Database,
    ledger: Ledger,
}

impl Stores {
    /// Opens all that a node opens; an `Err` says why that failed.
    pub(super) async fn open(folder: &Path) -> Result<Self, String> {
        Self::open_within(folder, Limits::default()).await
    }

    /// The same, within these limits.
    pub(super) async fn open_within(folder: &Path, limits: Limits) -> Result<Self, String> {
        let database = crate::store::open_within(folder, limits);
        let database = database.map_err(|error| format!("{error:?}"))?;
        let ledger = Ledger::open(database.clone(), "stream".into()).await;
        let ledger = ledger.map_err(|error| format!("{error:?}"))?;
        Ok(Self { database, ledger })
    }
}

impl Call {
    /// `run` writes once: what is called at the same time then takes effect in this order.
    fn new<F>(name: &str, run: impl Fn(Database) -> F + 'static) -> Self
    where
        F: Future<Output = Result<String, StoreError>> + 'static,
    {
        Self::of_ledger(name, move |stores| run(stores.database))
    }

    fn of_ledger<F>(name: &str, run: impl Fn(Stores) -> F + 'static) -> Self
    where
        F: Future<Output = Result<String, StoreError>> + 'static,
    {
        Self { name: name.to_owned(), run: Box::new(move |stores| Box::pin(run(stores))) }
    }

    /// Its answer, as text.
    pub(super) async fn on(&self, stores: &Stores) -> Result<String, StoreError> {
        (self.run)(stores.clone()).await
    }

    /// Any call, at the time `now`.
    pub(super) fn draw(rng: &mut StdRng, now: Timestamp) -> Self {
        match rng.random_range(0..27) {
            0..6 => arrive(rng, now),
            6 | 7 => settle(rng, now),
            8 => judge(rng, now),
            9..12 => enter(rng, now),
            12 => left(rng, now),
            13 => hold(rng, now),
            14 => backlog_goes_on(rng, now),
            15 => keep_events(rng, now),
            16 => note_passed(rng, now),
            17 => went_straight(rng, now),
            18 => hole(rng, now),
            19 => learn_record(rng, now),
            20 => make_own_record(rng, now),
            21 | 22 => outbox::told(rng, now),
            23 => outbox::asked(rng, now),
            24 => outbox::goes(rng, now),
            25 => outbox::receipts_go(rng, now),
            _ => tidy_up(rng, now),
        }
    }
}

fn text(answer: Result<impl Debug, StoreError>) -> Result<String, StoreError> {
    answer.map(|answer| format!("{answer:?}"))
}

fn server(rng: &mut StdRng) -> ServerName {
    ["a.test", "b.test", "c.test"][rng.random_range(0..3)].parse().unwrap()
}

fn bytes(rng: &mut StdRng) -> Bytes {
    let bytes_max = if rng.random_bool(0.1) { 20_000 } else { 400 };
    let mut bytes = vec![0; rng.random_range(0..bytes_max)];
    rng.fill(&mut bytes[..]);
    bytes.into()
}

fn key(rng: &mut StdRng) -> TransactionKey {
    let sha256 = [rng.random_range(0..2); 32];
    TransactionKey { origin: server(rng), txn_id: rng.random_range(0..40).to_string(), sha256 }
}

fn place(rng: &mut StdRng, now: Timestamp) -> StreamPlace {
    StreamPlace { stream: "s".into(), seq: rng.random_range(1..30), deposited_at: now }
}

fn row(rng: &mut StdRng) -> i64 {
    rng.random_range(1..40)
}

fn mail(rng: &mut StdRng, now: Timestamp) -> Mail {
    let standing = match rng.random_range(0..8) {
        0 => Standing::Parked("refused".into()),
        1 => Standing::Proofless,
        2 => Standing::Unverified("no key".into()),
        3 => Standing::Forged("altered".into()),
        _ => Standing::Waiting,
    };
    Mail {
        key: key(rng),
        content: bytes(rng),
        proof: (standing != Standing::Proofless).then(|| ("/send/1".into(), "X-Matrix".into())),
        place: Some(place(rng, now)),
        extras: Bytes::new(),
        is_entire: false,
        source: "relay.test".into(),
        request_id: None,
        standing,
    }
}

fn arrive(rng: &mut StdRng, now: Timestamp) -> Call {
    let mails: Vec<_> = (0..rng.random_range(1..5)).map(|_| mail(rng, now)).collect();
    Call::new("mail arrives", move |database| {
        let mails = mails.clone();
        async move { text(inbox::arrive(&database, mails, now).await) }
    })
}

fn settle(rng: &mut StdRng, now: Timestamp) -> Call {
    let events = vec![("!r".to_owned(), format!("${}", rng.random_range(0..30)))];
    let (id, origin, place) = (row(rng), server(rng), Some(place(rng, now)));
    let envelope = Settling { id, origin, place, events };
    let settled = match rng.random_range(0..4) {
        0 => Settled::Confirmed,
        1 => Settled::Superseded,
        2 => Settled::Parked("refused".into()),
        _ => Settled::Delivered(Default::default()),
    };
    Call::new("an envelope is settled", move |database| {
        let (envelope, settled) = (envelope.clone(), settled.clone());
        async move { text(inbox::settle(&database, envelope, settled, now).await) }
    })
}

fn judge(rng: &mut StdRng, now: Timestamp) -> Call {
    let (id, mail) = (row(rng), mail(rng, now));
    Call::new("an envelope is judged", move |database| {
        let mail = mail.clone();
        async move { text(inbox::judge(&database, id, mail, now).await) }
    })
}

fn enter(rng: &mut StdRng, now: Timestamp) -> Call {
    let transaction = Transaction {
        destination: server(rng),
        txn_id: rng.random_range(0..60).to_string(),
        content_sha256: [0; 32],
    };
    Call::of_ledger("a transaction is entered", move |Stores { ledger, .. }| {
        let transaction = transaction.clone();
        async move { text(ledger.enter(transaction, now).await) }
    })
}

fn left(rng: &mut StdRng, now: Timestamp) -> Call {
    let (destination, relay, seq) = (server(rng), server(rng), rng.random_range(1..10));
    let to_a_relay = rng.random();
    let content = bytes(rng);
    let copy = KeptCopy {
        compressed: content.to_vec(),
        ..KeptCopy::of(("/send/1", "X-Matrix"), b"", None).unwrap()
    };
    let word = if rng.random() { Word::Counts } else { Word::DoesNotCount };
    let kept = Kept { copy, bytes_max: rng.random_range(1_000..40_000), word };
    Call::of_ledger("a transaction is left", move |Stores { ledger, .. }| {
        let (destination, relay) = (destination.clone(), relay.clone());
        let kept = kept.clone();
        async move {
            text(if to_a_relay {
                ledger.held_by((destination, seq), relay, Some(kept), now).await
            } else {
                ledger.delivered(destination, seq, None, now).await
            })
        }
    })
}

fn hold(rng: &mut StdRng, now: Timestamp) -> Call {
    let events: Vec<_> = (0..rng.random_range(1..4))
        .map(|_| Aside {
            pdu: Pdu {
                room_id: "!r".into(),
                event_id: Some(format!("${}", rng.random_range(0..30))),
                prev_events: vec!["$p".into()],
                json: bytes(rng),
                sender: None,
                is_acl: false,
            },
            origin: server(rng),
            is_proven: rng.random(),
            fate: if rng.random() {
                Fate::Waits { attempts: 0, due_at: now }
            } else {
                Fate::Parked("refused".into())
            },
        })
        .collect();
    Call::new("events are set aside", move |database| {
        let events = events.clone();
        async move { text(backlog::hold(&database, events, now).await) }
    })
}

fn backlog_goes_on(rng: &mut StdRng, now: Timestamp) -> Call {
    let (id, step) = (row(rng), rng.random_range(0..3));
    Call::new("an event of the backlog goes on", move |database| async move {
        match step {
            0 => text(backlog::sent(&database, vec![id, id + 1]).await),
            1 => text(backlog::confirmed(&database, id, now).await),
            _ => {
                let again = move |attempts| Fate::Waits { attempts, due_at: now };
                text(backlog::dropped(&database, id, "dropped".into(), now, again).await)
            }
        }
    })
}

fn keep_events(rng: &mut StdRng, now: Timestamp) -> Call {
    let event = held_event(rng);
    let goes = rng.random_bool(0.3);
    Call::new("events of a capsule are kept or let go", move |database| {
        let event = event.clone();
        async move {
            if goes {
                text(held::forget(&database, event.room_id, vec![event.event_id]).await)
            } else {
                text(held::note(&database, vec![event], now).await)
            }
        }
    })
}

fn held_event(rng: &mut StdRng) -> HeldEvent {
    HeldEvent {
        room_id: "!r".into(),
        event_id: format!("${}", rng.random_range(0..20)),
        prev_events: vec!["$p".into()],
        pdu: bytes(rng),
        source: if rng.random() { HeldSource::Backlog } else { HeldSource::Capsule },
        is_proven: rng.random(),
    }
}

fn note_passed(rng: &mut StdRng, now: Timestamp) -> Call {
    let destination = server(rng);
    let event_ids = (0..3).map(|_| format!("${}", rng.random_range(0..50)));
    let event_ids: std::collections::BTreeSet<_> = event_ids.collect();
    let limits =
        passed::Limits { forgotten_before: now.before(Duration::from_secs(30)), count_max: 20 };
    Call::new("events are passed on", move |database| {
        let (destination, event_ids) = (destination.clone(), event_ids.clone());
        async move { text(passed::note(&database, destination, event_ids, now, limits).await) }
    })
}

fn went_straight(rng: &mut StdRng, now: Timestamp) -> Call {
    let (key, seq) = (key(rng), rng.random_range(1..30));
    Call::new("a transaction goes straight through", move |database| {
        let key = key.clone();
        async move { text(seen::passed(&database, key, ("s".into(), seq), vec![7], now).await) }
    })
}

fn hole(rng: &mut StdRng, now: Timestamp) -> Call {
    let first = rng.random_range(1..30);
    let hole = Hole {
        origin: server(rng),
        stream: "s".into(),
        first,
        last: first + 3,
        relays: "relay.test".into(),
        noticed_at: now,
    };
    Call::new("a hole is reported", move |database| {
        let hole = hole.clone();
        async move { text(holes::report(&database, hole).await) }
    })
}

fn learn_record(rng: &mut StdRng, now: Timestamp) -> Call {
    let relays = (0..rng.random_range(0..4)).map(|priority| RecordedRelay {
        server_name: server(rng),
        url: None,
        priority,
    });
    let relays = relays.collect();
    let record = RelayRecord { server_name: server(rng), relays, version: now };
    let recorded = Recorded { record, learned_from: LearnedFrom::Mail, learned_at: now };
    Call::new("a relay record is learned", move |database| {
        let recorded = recorded.clone();
        let json = serde_json::to_vec(&recorded.record).unwrap();
        let put = move |connection: &Connection| relay_records::put(connection, &json, &recorded);
        async move { text(database.write(put).await) }
    })
}

fn make_own_record(rng: &mut StdRng, now: Timestamp) -> Call {
    let relays: Vec<Peer> = (0..rng.random_range(0..3)).map(|_| server(rng).into()).collect();
    Call::new("the own relay record is made", move |database| {
        let relays = relays.clone();
        let own = OwnRecord::new(identity("a.test"), database, None);
        async move { text(own.naming(&relays, None, now).await) }
    })
}

fn tidy_up(rng: &mut StdRng, now: Timestamp) -> Call {
    let (later, room_id) = (rng.random_range(0..45), rng.random_range(0..9).to_string());
    let forget = rng.random_bool(0.5);
    Call::new("old things are forgotten, or a room's version is learned", move |database| {
        let room_id = room_id.clone();
        async move {
            if forget {
                let now = now.after(Duration::from_hours(24 * later));
                text(seen::prune(&database, now).await)
            } else {
                text(rooms::remember(&database, room_id, "11".into()).await)
            }
        }
    })
}
