//! The key ring against scripted servers, in virtual time.

use std::collections::HashMap;
use std::sync::Mutex;

use http::{Request, Response};
use restante_federation_proto::{ManualClock, SigningKey, mint, sign_json};
use tokio::sync::Semaphore;

use super::*;
use crate::body::{Body, full};
use crate::exchange::{ExchangeError, Patience, Stage};
use crate::key_store::MemoryKeyStore;

const DAY: Duration = Duration::from_hours(24);
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn key_id(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn signing_key(id: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(key_id(id), &[seed; 32])
}

fn document(server: &str, key: &SigningKey, valid_until: Timestamp) -> KeyDocument {
    mint(&name(server), key, None, valid_until)
}

/// A document that lists `new` alone and is signed by `old` as well.
fn rotated(server: &str, old: &SigningKey, new: &SigningKey, until: Timestamp) -> KeyDocument {
    let raw = document(server, new, until).raw().clone();
    let mut object: serde_json::Map<_, _> = serde_json::from_slice(&raw).unwrap();
    sign_json(&mut object, &name(server), old);
    KeyDocument::parse(serde_json::to_vec(&object).unwrap().into()).unwrap()
}

/// Servers that answer what the test says; all others can't be reached.
#[derive(Default)]
struct Servers {
    answers: Mutex<HashMap<(String, &'static str), Bytes>>,
    asked: Mutex<Vec<String>>,
    /// While closed, nobody answers.
    gate: Option<Semaphore>,
}

impl Servers {
    fn serve(&self, server: &str, document: &KeyDocument) {
        let key = (server.to_owned(), "GET");
        self.answers.lock().unwrap().insert(key, document.raw().clone());
    }

    fn notarise(&self, notary: &str, documents: &[Bytes]) {
        let answer = NotaryResponse::to_json(documents).into();
        self.answers.lock().unwrap().insert((notary.to_owned(), "POST"), answer);
    }

    fn go_offline(&self, server: &str) {
        self.answers.lock().unwrap().retain(|(name, _), _| name != server);
    }

    fn times_asked(&self, server: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == server).count()
    }
}

#[async_trait]
impl Exchange for Servers {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        _patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        self.asked.lock().unwrap().push(peer.name.to_string());
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        let method = if request.method() == "GET" { "GET" } else { "POST" };
        let answer = self.answers.lock().unwrap().get(&(peer.name.to_string(), method)).cloned();
        answer.map(|body| Response::new(full(body))).ok_or_else(|| ExchangeError::Timeout {
            server: peer.name.clone(),
            stage: Stage::Connect,
        })
    }
}

struct Documents(Vec<KeyDocument>);

#[async_trait]
impl Voucher for Documents {
    async fn documents(&self, _server: &ServerName) -> Vec<KeyDocument> {
        self.0.clone()
    }
}

struct World {
    ring: KeyRing,
    servers: Arc<Servers>,
    clock: Arc<ManualClock>,
    store: Arc<MemoryKeyStore>,
}

impl World {
    fn new() -> Self {
        Self::with(Servers::default(), &[], Vec::new())
    }

    fn with(servers: Servers, notaries: &[&str], vouchers: Vec<Arc<dyn Voucher>>) -> Self {
        let servers = Arc::new(servers);
        let clock = Arc::new(ManualClock::new(START));
        let store = Arc::new(MemoryKeyStore::default());
        let key = Arc::new(signing_key("ed25519:own", 99));
        let notary = |text: &&str| Notary { peer: name(text).into() };
        let ring = KeyRing::new(KeyRingParts {
            identity: Identity { server_name: name("own.example"), key },
            exchange: servers.clone(),
            store: store.clone(),
            clock: clock.clone(),
            notaries: notaries.iter().map(notary).collect(),
            vouchers,
        });
        Self { ring, servers, clock, store }
    }

    async fn key(&self, server: &str, id: &str) -> Result<PublicKey, KeyLookupError> {
        self.ring.key(&name(server), &key_id(id), Freshness::ValidNow).await
    }

    async fn believed_key(&self, server: &str, id: &str) -> Result<PublicKey, KeyLookupError> {
        self.ring.key(&name(server), &key_id(id), Freshness::Believed).await
    }

    async fn evidence(&self, server: &str) -> Option<Evidence> {
        self.ring.believed(&name(server)).await.map(|believed| believed.evidence)
    }
}

fn is_unreachable(found: &Result<PublicKey, KeyLookupError>) -> bool {
    matches!(found, Err(KeyLookupError::Unreachable { .. }))
}

#[tokio::test]
async fn a_name_that_is_a_key_and_the_own_key_need_no_asking() {
    let world = World::new();
    let key = signing_key("ed25519:p2p", 1).public_key();
    let named = ServerName::of_key(&key);
    assert_eq!(world.key(named.as_str(), "ed25519:whatever").await, Ok(key));
    let own = signing_key("ed25519:own", 99).public_key();
    assert_eq!(world.key("own.example", "ed25519:own").await, Ok(own));
    assert!(world.servers.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_fetched_document_is_kept_until_it_expires() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    for _ in 0..3 {
        assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
    }
    assert_eq!(world.servers.times_asked("a.example"), 1);
    assert_eq!(world.evidence("a.example").await, Some(Evidence::Fetched));

    world.clock.advance(DAY + Duration::from_secs(1));
    world.servers.go_offline("a.example");
    assert!(is_unreachable(&world.key("a.example", "ed25519:1").await));
    assert_eq!(world.believed_key("a.example", "ed25519:1").await, Ok(key.public_key()));

    world.clock.advance(Duration::from_mins(10));
    let renewed = document("a.example", &key, START.after(DAY * 3));
    world.servers.serve("a.example", &renewed);
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
}

#[tokio::test]
async fn what_is_kept_survives_in_the_store() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    world.key("a.example", "ed25519:1").await.unwrap();
    let kept = world.store.list().await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept, world.ring.list().await.unwrap());
}

#[tokio::test]
async fn many_who_look_for_the_same_key_ask_once() {
    let servers = Servers { gate: Some(Semaphore::new(0)), ..Servers::default() };
    let world = World::with(servers, &[], Vec::new());
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    let open = async { world.servers.gate.as_ref().unwrap().add_permits(100) };
    let look = || world.key("a.example", "ed25519:1");
    let (a, b, c, ()) = tokio::join!(look(), look(), look(), open);
    for found in [a, b, c] {
        assert_eq!(found, Ok(key.public_key()));
    }
    assert_eq!(world.servers.times_asked("a.example"), 1);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_left_alone_for_a_while() {
    let world = World::new();
    let Err(KeyLookupError::Unreachable { retry_after, .. }) =
        world.key("a.example", "ed25519:1").await
    else {
        panic!("nobody could answer");
    };
    for _ in 0..5 {
        assert!(is_unreachable(&world.key("a.example", "ed25519:1").await));
    }
    assert_eq!(world.servers.times_asked("a.example"), 1);

    world.clock.advance(retry_after);
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
}

#[tokio::test]
async fn strangers_without_keys_leave_nothing_in_the_store() {
    let world = World::new();
    for number in 0..50 {
        let server = format!("s{number}.example");
        assert!(is_unreachable(&world.key(&server, "ed25519:1").await));
    }
    assert!(world.store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_once_a_minute() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    world.key("a.example", "ed25519:1").await.unwrap();
    world.clock.advance(Duration::from_hours(1));
    let found = world.key("a.example", "ed25519:other").await;
    assert!(matches!(found, Err(KeyLookupError::NoSuchKey { .. })));
    for _ in 0..5 {
        let found = world.key("a.example", "ed25519:other").await;
        assert!(is_unreachable(&found), "it may have got that key since it was asked");
    }
    assert_eq!(world.servers.times_asked("a.example"), 2);
    world.clock.advance(Duration::from_mins(1));
    world.key("a.example", "ed25519:other").await.unwrap_err();
    assert_eq!(world.servers.times_asked("a.example"), 3);
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
}

#[tokio::test]
async fn an_unknown_key_of_a_server_that_is_away_may_come_later() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    world.key("a.example", "ed25519:1").await.unwrap();
    world.servers.go_offline("a.example");
    world.clock.advance(Duration::from_hours(1));
    assert!(is_unreachable(&world.key("a.example", "ed25519:2").await));
}

#[tokio::test]
async fn a_server_that_changed_its_key_is_believed_though_its_old_document_is_valid_longer() {
    let world = World::new();
    let (old, new) = (signing_key("ed25519:1", 1), signing_key("ed25519:2", 2));
    world.servers.serve("a.example", &document("a.example", &old, START.after(DAY * 37)));
    world.key("a.example", "ed25519:1").await.unwrap();
    world.servers.serve("a.example", &document("a.example", &new, START.after(DAY)));
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.key("a.example", "ed25519:2").await, Ok(new.public_key()));
    world.clock.advance(Duration::from_mins(1));
    let gone = world.key("a.example", "ed25519:1").await;
    assert!(matches!(gone, Err(KeyLookupError::NoSuchKey { .. })));
}

#[tokio::test]
async fn a_key_that_was_learned_by_a_clock_that_was_ahead_gives_way_to_a_new_one() {
    let world = World::new();
    let (old, new) = (signing_key("ed25519:1", 1), signing_key("ed25519:2", 2));
    let learned = BelievedDocument {
        document: document("a.example", &old, START.after(DAY * 37)),
        evidence: Evidence::Fetched,
        learned_at: START.after(DAY * 30),
    };
    world.store.save(&learned).await.unwrap();
    world.servers.serve("a.example", &document("a.example", &new, START.after(DAY)));
    assert_eq!(world.key("a.example", "ed25519:2").await, Ok(new.public_key()));
}

/// A store of which nothing can be read.
struct Damaged;

#[async_trait]
impl KeyStore for Damaged {
    async fn load(&self, _: &ServerName) -> Result<Option<BelievedDocument>, KeyStoreError> {
        let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        let damage = rusqlite::Error::SqliteFailure(damage, None);
        Err(KeyStoreError(restante_sqlite::StoreError::from(damage).into()))
    }

    async fn save(&self, _: &BelievedDocument) -> Result<(), KeyStoreError> {
        Err(KeyStoreError("damaged".into()))
    }

    async fn forget(&self, _: &ServerName) -> Result<(), KeyStoreError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<BelievedDocument>, KeyStoreError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_key_whose_document_is_damaged_is_fetched_anew() {
    let servers = Arc::new(Servers::default());
    let key = signing_key("ed25519:1", 1);
    servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    let own = Arc::new(signing_key("ed25519:own", 99));
    let ring = KeyRing::new(KeyRingParts {
        identity: Identity { server_name: name("own.example"), key: own },
        exchange: servers,
        store: Arc::new(Damaged),
        clock: Arc::new(ManualClock::new(START)),
        notaries: Vec::new(),
        vouchers: Vec::new(),
    });
    let found = ring.key(&name("a.example"), &key_id("ed25519:1"), Freshness::ValidNow).await;
    assert_eq!(found, Ok(key.public_key()));
}

#[tokio::test]
async fn a_document_without_end_is_trusted_for_forty_days_and_longer_when_confirmed() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY * 10_000)));
    world.key("a.example", "ed25519:1").await.unwrap();
    world.clock.advance(DAY * 41);
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
    assert_eq!(world.servers.times_asked("a.example"), 2);
    world.clock.advance(DAY * 41);
    world.servers.go_offline("a.example");
    assert!(is_unreachable(&world.key("a.example", "ed25519:1").await));
}

#[tokio::test]
async fn a_document_in_another_name_is_not_taken() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("evil.example", &document("a.example", &key, START.after(DAY)));
    assert!(is_unreachable(&world.key("evil.example", "ed25519:1").await));
    assert_eq!(world.evidence("a.example").await, None);
}

#[tokio::test]
async fn a_self_signed_document_of_a_stranger_is_not_believed() {
    let world = World::new();
    let forged = document("a.example", &signing_key("ed25519:1", 66), START.after(DAY));
    assert!(!world.ring.offer(&forged).await);
    assert!(is_unreachable(&world.key("a.example", "ed25519:1").await));
    assert!(world.store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stranger_cannot_take_a_known_name_over() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    world.key("a.example", "ed25519:1").await.unwrap();
    let forged = document("a.example", &signing_key("ed25519:1", 66), START.after(DAY * 30));
    assert!(!world.ring.offer(&forged).await);
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
}

#[tokio::test]
async fn a_believed_key_prolongs_and_rotates_and_is_never_rolled_back() {
    let world = World::new();
    let (old, new) = (signing_key("ed25519:1", 1), signing_key("ed25519:2", 2));
    let first = document("a.example", &old, START.after(DAY));
    world.servers.serve("a.example", &first);
    world.key("a.example", "ed25519:1").await.unwrap();
    world.servers.go_offline("a.example");

    assert!(world.ring.offer(&document("a.example", &old, START.after(DAY * 37))).await);
    assert!(!world.ring.offer(&first).await);
    world.clock.advance(DAY * 30);
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(old.public_key()));

    let rotation = rotated("a.example", &old, &new, START.after(DAY * 60));
    assert!(world.ring.offer(&rotation).await);
    assert!(world.ring.offer(&rotation).await);
    assert_eq!(world.key("a.example", "ed25519:2").await, Ok(new.public_key()));
    assert_eq!(world.evidence("a.example").await, Some(Evidence::Fetched));
}

#[tokio::test]
async fn a_voucher_helps_when_the_server_is_away_and_does_not_outweigh_it() {
    let (vouched, fetched) = (signing_key("ed25519:1", 1), signing_key("ed25519:1", 2));
    let known = document("a.example", &vouched, START.after(DAY * 30));
    let world = World::with(Servers::default(), &[], vec![Arc::new(Documents(vec![known]))]);
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(vouched.public_key()));
    assert_eq!(world.evidence("a.example").await, Some(Evidence::Vouched));

    world.servers.serve("a.example", &document("a.example", &fetched, START.after(DAY)));
    world.clock.advance(Duration::from_hours(1));
    world.ring.refreshed(&name("a.example"), START.after(DAY * 31)).await.unwrap();
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(fetched.public_key()));
    assert_eq!(world.evidence("a.example").await, Some(Evidence::Fetched));

    world.servers.go_offline("a.example");
    world.clock.advance(DAY * 2);
    assert!(is_unreachable(&world.key("a.example", "ed25519:1").await));
    assert_eq!(world.evidence("a.example").await, Some(Evidence::Fetched));
}

#[tokio::test]
async fn a_vouched_document_without_end_stays_usable_while_somebody_vouches_for_it() {
    let key = signing_key("ed25519:1", 1);
    let known = document("a.example", &key, START.after(DAY * 10_000));
    let world = World::with(Servers::default(), &[], vec![Arc::new(Documents(vec![known]))]);
    world.key("a.example", "ed25519:1").await.unwrap();
    world.clock.advance(DAY * 41);
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
}

#[tokio::test]
async fn a_notary_vouches_with_its_own_key() {
    let world = World::with(Servers::default(), &["notary.example"], Vec::new());
    let (key, notary) = (signing_key("ed25519:1", 1), signing_key("ed25519:n", 9));
    world.servers.serve("notary.example", &document("notary.example", &notary, START.after(DAY)));
    let known = document("a.example", &key, START.after(DAY));
    let countersigned = known.countersigned(&name("notary.example"), &notary);
    world.servers.notarise("notary.example", &[countersigned]);
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
    assert_eq!(world.evidence("a.example").await, Some(Evidence::Vouched));
}

#[tokio::test]
async fn a_notary_whose_signature_is_missing_or_wrong_is_not_believed() {
    let world = World::with(Servers::default(), &["notary.example"], Vec::new());
    let (key, notary) = (signing_key("ed25519:1", 1), signing_key("ed25519:n", 9));
    let known = document("a.example", &key, START.after(DAY));
    let stranger = signing_key("ed25519:n", 66);
    let signed_by_stranger = known.countersigned(&name("notary.example"), &stranger);
    world.servers.serve("notary.example", &document("notary.example", &notary, START.after(DAY)));
    for answer in [known.raw().clone(), signed_by_stranger] {
        world.servers.notarise("notary.example", &[answer]);
        assert!(is_unreachable(&world.key("a.example", "ed25519:1").await));
        world.clock.advance(Duration::from_mins(10));
    }
    assert_eq!(world.evidence("a.example").await, None);
}

#[tokio::test]
async fn two_notaries_that_are_away_do_not_wait_for_each_other() {
    let world = World::with(Servers::default(), &["n1.example", "n2.example"], Vec::new());
    let key = signing_key("ed25519:1", 1);
    for (notary, other) in [("n1.example", "n2.example"), ("n2.example", "n1.example")] {
        let known = document(other, &key, START.after(DAY));
        world.servers.notarise(notary, &[known.countersigned(&name(notary), &key)]);
    }
    let (a, b) =
        tokio::join!(world.key("n1.example", "ed25519:1"), world.key("n2.example", "ed25519:1"));
    assert!(is_unreachable(&a) && is_unreachable(&b));
}

#[tokio::test]
async fn an_operator_may_trust_and_forget() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.ring.trust(&document("a.example", &key, START.after(DAY))).await.unwrap();
    assert_eq!(world.key("a.example", "ed25519:1").await, Ok(key.public_key()));
    world.ring.forget(&name("a.example")).await.unwrap();
    assert!(is_unreachable(&world.key("a.example", "ed25519:1").await));
}

#[tokio::test]
async fn a_retired_key_counts_for_older_signatures_alone() {
    let world = World::new();
    let (retired, key) = (signing_key("ed25519:0", 5), signing_key("ed25519:1", 1));
    let raw = serde_json::json!({
        "server_name": "a.example",
        "verify_keys": { "ed25519:1": { "key": key.public_key().to_base64() } },
        "old_verify_keys": {
            "ed25519:0": { "key": retired.public_key().to_base64(), "expired_ts": 1_600_000_000_000_u64 },
        },
        "valid_until_ts": START.after(DAY),
    });
    let serde_json::Value::Object(mut object) = raw else { unreachable!() };
    sign_json(&mut object, &name("a.example"), &key);
    let document = KeyDocument::parse(serde_json::to_vec(&object).unwrap().into()).unwrap();
    world.servers.serve("a.example", &document);
    assert_eq!(world.believed_key("a.example", "ed25519:0").await, Ok(retired.public_key()));
    let signed_at = |millis| {
        let freshness = Freshness::SignedAt(Timestamp::from_millis(millis));
        let (server, id) = (name("a.example"), key_id("ed25519:0"));
        let ring = &world.ring;
        async move { ring.key(&server, &id, freshness).await }
    };
    assert_eq!(signed_at(1_600_000_000_000).await, Ok(retired.public_key()));
    assert!(signed_at(1_600_000_000_001).await.is_err(), "signed after the key was retired");
    let now = world.key("a.example", "ed25519:0").await;
    assert!(matches!(now, Err(KeyLookupError::NoSuchKey { .. })));
}

#[tokio::test]
async fn as_a_notary_it_countersigns_what_it_believes_and_leaves_the_rest_out() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    world.servers.serve("a.example", &document("a.example", &key, START.after(DAY)));
    let asked = [(name("a.example"), START), (name("gone.example"), START)];
    let answer = NotaryResponse::parse(&world.ring.notary_answer(&asked).await).unwrap();
    let [document] = answer.server_keys.as_slice() else { panic!("{answer:?}") };
    assert_eq!(document.server_name(), &name("a.example"));
    let own = signing_key("ed25519:own", 99);
    assert!(document.is_signed_by(&name("own.example"), own.id(), &own.public_key()));

    world.servers.go_offline("a.example");
    let later = [(name("a.example"), START.after(DAY * 2))];
    let answer = NotaryResponse::parse(&world.ring.notary_answer(&later).await).unwrap();
    assert_eq!(answer.server_keys.len(), 1);
}

#[tokio::test]
async fn as_a_public_notary_it_passes_on_nothing_that_others_merely_vouch_for() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    let vouched = document("vouched.example", &key, START.after(DAY));
    assert!(world.ring.offer_vouched(&vouched).await);
    world.servers.serve("fetched.example", &document("fetched.example", &key, START.after(DAY)));
    let asked = [(name("vouched.example"), START), (name("fetched.example"), START)];
    let servers = |answer: &[u8]| {
        let answer = NotaryResponse::parse(answer).unwrap();
        answer.server_keys.iter().map(|keys| keys.server_name().to_string()).collect::<Vec<_>>()
    };

    let public = world.ring.public_notary_answer(&asked).await;
    assert_eq!(servers(&public), ["fetched.example"]);
    let own = world.ring.notary_answer(&asked).await;
    assert_eq!(servers(&own), ["vouched.example", "fetched.example"]);

    world.servers.serve("vouched.example", &vouched);
    world.clock.advance(Duration::from_mins(11));
    let public = world.ring.public_notary_answer(&asked[..1]).await;
    assert_eq!(servers(&public), ["vouched.example"], "it has seen it for itself");
}

#[tokio::test]
async fn a_key_named_server_vouches_for_its_own_document() {
    let world = World::new();
    let key = signing_key("ed25519:1", 1);
    let named = ServerName::of_key(&key.public_key());
    assert!(world.ring.offer(&mint(&named, &key, None, START.after(DAY))).await);
    let impostor = mint(&named, &signing_key("ed25519:1", 66), None, START.after(DAY * 2));
    assert!(!world.ring.offer(&impostor).await);
    assert_eq!(world.evidence(named.as_str()).await, Some(Evidence::NameIsKey));

    let world = World::new();
    world.servers.serve(named.as_str(), &impostor);
    assert!(world.ring.refreshed(&named, START).await.is_err());
    assert_eq!(world.evidence(named.as_str()).await, None);
}
