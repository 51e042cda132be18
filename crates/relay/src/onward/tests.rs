//! Onward delivery as a whole, over a scripted network, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use restante_federation::{
    Body, BoxError, Exchange, ExchangeError, Identity, MemoryKeyStore, Patience, Peer, Stage,
    WebFileError, collect_limited, full,
};
use restante_federation_proto::{
    ManualClock, SignableRequest, SigningKey, SystemDice, Timestamp, mint,
};
use restante_mailbox::{
    AdmittedBy, ContentHash, Custody as _, Deposit, Lapse, LeftMail, MailboxSummary, MemoryStore,
    Onward, Outgoing, Registration, Registry as _, Senders,
};
use restante_relay_api::endpoints::VERSION;
use restante_relay_api::{
    Content, DepositBody, Extras, Proof, Receipt, RecordedRelay, RelayRecord, hex,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::RelayConfig;
use crate::disk::NoDisk;
use crate::service::{Service, ServiceParts};
use crate::stores::Stores;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// What a server answers.
#[derive(Clone, Copy)]
enum Reply {
    Taken,
    Refused,
    /// The request is taken, and no answer comes.
    Hangs,
    /// An answer whose body never ends.
    Drips,
    /// All is taken but a transaction whose id begins with `poison`.
    TakesAllButPoison,
    /// Something that meets a defect here.
    Breaks,
    /// 200 with this.
    Says(&'static str),
    /// A relay's receipt for the deposit, signed by this server.
    ReceiptOf(&'static str),
}

#[derive(Default)]
struct Network {
    replies: Mutex<BTreeMap<String, Reply>>,
    files: Mutex<BTreeMap<String, Bytes>>,
    calls: Mutex<Vec<Call>>,
}

#[derive(Clone)]
struct Call {
    at: Instant,
    server: String,
    target: String,
    body: Bytes,
}

#[async_trait]
impl Exchange for Network {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let (head, body) = request.into_parts();
        let body = collect_limited(body, 1 << 24).await.unwrap();
        let (server, target) = (peer.name.to_string(), head.uri.path().to_owned());
        let reply = self.replies.lock().unwrap().get(&server).copied();
        let call = Call { at: Instant::now(), server, target: target.clone(), body: body.clone() };
        self.calls.lock().unwrap().push(call);
        let name = peer.name.clone();
        match reply.unwrap_or(Reply::Refused) {
            Reply::TakesAllButPoison if target.contains("/poison") => {
                let mut failed = Response::new(full("<html>"));
                *failed.status_mut() = http::StatusCode::GATEWAY_TIMEOUT;
                Ok(failed)
            }
            Reply::Taken | Reply::TakesAllButPoison => Ok(Response::new(full(r#"{"pdus":{}}"#))),
            Reply::Refused => {
                Err(ExchangeError::Connect { server: name, source: "refused".into() })
            }
            Reply::Breaks => panic!("a defect"),
            Reply::Says(text) => Ok(Response::new(full(text))),
            Reply::ReceiptOf(signer) => {
                Ok(Response::new(full(receipt(&name, &target, (body, signer)))))
            }
            Reply::Hangs => {
                tokio::time::sleep(patience.answer).await;
                Err(ExchangeError::Timeout { server: name, stage: Stage::Answer })
            }
            Reply::Drips => {
                let drops = futures_util::stream::repeat(()).then(async |()| {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    Ok::<_, BoxError>(Frame::data(Bytes::from_static(b" ")))
                });
                Ok(Response::new(StreamBody::new(drops).boxed_unsync()))
            }
        }
    }

    async fn web_file(
        &self,
        server: &ServerName,
        _: &'static str,
        _: Duration,
    ) -> Result<Bytes, WebFileError> {
        let file = self.files.lock().unwrap().get(server.as_str()).cloned();
        file.ok_or_else(|| WebFileError("no such site".to_owned()))
    }
}

/// What the relay `of` answers to a deposit, if it has the key of `signer`.
fn receipt(of: &ServerName, target: &str, (body, signer): (Bytes, &str)) -> Bytes {
    let DepositBody { content, extras } = DepositBody::parse(body).unwrap();
    let mut path = target.rsplit('/');
    let destination = path.next().unwrap().split_once(':').unwrap().1.parse().unwrap();
    let receipt = Receipt {
        relay: of.clone(),
        origin: extras.proof.unwrap().claim().unwrap().origin().clone(),
        destination,
        txn_id: path.next().unwrap().to_owned(),
        content_sha256: hex(content.sha256()),
        received_at: NOW,
        expires_at: NOW.after(HOUR),
    };
    Receipt::to_answer(&receipt.signed(&key_of(signer)))
}

struct TestRelay {
    clock: Arc<ManualClock>,
    network: Arc<Network>,
    store: Arc<MemoryStore>,
    service: Service,
    shutdown: CancellationToken,
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl TestRelay {
    fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()), Arc::default())
    }

    fn on(store: Arc<MemoryStore>, network: Arc<Network>) -> Self {
        Self::with(store, network, &RelayConfig::default())
    }

    fn with(store: Arc<MemoryStore>, network: Arc<Network>, config: &RelayConfig) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let key = SigningKey::from_seed("ed25519:r".parse().unwrap(), &[9; 32]);
        let server_name = ServerName::of_key(&key.public_key());
        let parts = ServiceParts {
            identity: Identity { server_name, key: Arc::new(key) },
            exchange: network.clone(),
            key_store: Arc::new(MemoryKeyStore::default()),
            stores: Stores::of(store.clone()),
            disk: Arc::new(NoDisk),
            clock: clock.clone(),
            dice: Arc::new(SystemDice),
        };
        let shutdown = CancellationToken::new();
        let service = Service::new(config, parts, shutdown.clone());
        Self { clock, network, store, service, shutdown }
    }

    fn state(&self) -> &RelayState {
        self.service.state()
    }

    fn start(&self) {
        tokio::spawn(run(self.state().clone()));
    }

    fn answers(&self, server: &str, reply: Reply) {
        self.network.replies.lock().unwrap().insert(server.to_owned(), reply);
    }

    /// Mail with so many events of one room is left to be delivered.
    async fn left(&self, origin: &str, destination: &str, txn_id: &str, events: usize) {
        self.store.register(registration(origin, AdmittedBy::Operator), None, NOW).await.unwrap();
        self.lies_there(origin, destination, txn_id, events).await;
    }

    /// The same of an origin that is registered already, or no more.
    async fn lies_there(&self, origin: &str, destination: &str, txn_id: &str, events: usize) {
        let pdus = vec![json!({ "room_id": "!r:a.test" }); events];
        let content =
            json!({ "origin": origin, "origin_server_ts": NOW.as_millis(), "pdus": pdus });
        let content = Content::parse(content.to_string().into()).unwrap();
        let destination = name(destination);
        let proof = proof(origin, &destination, txn_id, &content);
        let keys = mint(&name(origin), &key_of(origin), None, NOW.after(HOUR));
        let members = Extras::new(&proof, b"{}", keys.raw()).unwrap().json;
        let deposit = Deposit {
            recipient: destination.clone(),
            origin: name(origin),
            txn_id: txn_id.to_owned(),
            content_hash: ContentHash(*content.sha256()),
            content: content.raw().clone(),
            members,
            deposited_at: NOW,
            expires_at: NOW.after(HOUR * 1000),
            onward: Onward::Wanted,
        };
        self.store.import(vec![deposit]).await.unwrap();
        self.state().onward.left(&destination);
    }

    fn calls(&self, server: &str) -> Vec<Call> {
        let calls = self.network.calls.lock().unwrap();
        calls.iter().filter(|call| call.server == server).cloned().collect()
    }

    /// Calls with a transaction.
    fn sent(&self, server: &str) -> Vec<Call> {
        self.calls(server).into_iter().filter(|call| call.target != VERSION).collect()
    }

    fn sent_to_all(&self) -> usize {
        let calls = self.network.calls.lock().unwrap();
        calls.iter().filter(|call| call.target != VERSION).count()
    }

    fn heard(&self, server: &str) {
        self.state().onward.heard(&name(server), &self.state().rules().onward);
    }

    async fn mailbox(&self, of: &str) -> MailboxSummary {
        self.store.summary(&name(of)).await.unwrap().unwrap()
    }
}

fn name(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn registration(origin: &str, admitted_by: AdmittedBy) -> Registration {
    Registration {
        recipient: name(origin),
        record: Bytes::from_static(b"{}"),
        senders: Senders::default(),
        time_to_live: None,
        registered_at: NOW,
        admitted_by,
        outgoing: Outgoing::Yes,
    }
}

fn key_of(server: &str) -> SigningKey {
    let seed = [server.as_bytes()[0]; 32];
    SigningKey::from_seed("ed25519:1".parse().unwrap(), &seed)
}

fn proof(origin: &str, destination: &ServerName, txn_id: &str, content: &Content) -> Proof {
    let uri = format!("/_matrix/federation/v1/send/{txn_id}");
    let signable = SignableRequest {
        method: "PUT",
        target: &uri.parse().unwrap(),
        origin: &name(origin),
        destination: Some(destination),
        content: Some(content.canonical()),
    };
    let authorization = signable.sign(&key_of(origin)).to_string();
    Proof { uri, authorization }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_hangs_or_drips_holds_up_no_other_and_is_cut_off() {
    let relay = TestRelay::new();
    relay.start();
    relay.answers("hangs.test", Reply::Hangs);
    relay.answers("drips.test", Reply::Drips);
    relay.answers("b.test", Reply::Taken);
    for destination in ["hangs.test", "drips.test", "b.test"] {
        relay.left("a.test", destination, "1", 1).await;
    }
    pass(Duration::from_secs(1)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 1);

    pass(HOUR).await;
    for destination in ["hangs.test", "drips.test"] {
        let mailbox = relay.mailbox(destination).await;
        assert_eq!((mailbox.depth.count, mailbox.delivered_total), (1, 0), "{destination}");
        let calls = relay.calls(destination);
        assert!((5..=10).contains(&calls.len()), "{destination}: {}", calls.len());
        relay.answers(destination, Reply::Taken);
    }
    pass(2 * HOUR).await;
    assert_eq!(relay.mailbox("drips.test").await.delivered_total, 1);
}

#[tokio::test(start_paused = true)]
async fn defects_that_the_mail_of_many_destinations_meets_hold_up_no_other() {
    let relay = TestRelay::new();
    relay.start();
    for number in 0..40 {
        let destination = format!("b{number}.test");
        relay.answers(&destination, Reply::Breaks);
        relay.left("a.test", &destination, "1", 1).await;
    }
    pass(Duration::from_secs(60)).await;
    relay.answers("b.test", Reply::Taken);
    relay.left("a.test", "b.test", "1", 1).await;
    pass(Duration::from_secs(1)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 1);
    pass(HOUR).await;
    let calls = relay.calls("b0.test").len();
    assert!((3..=8).contains(&calls), "it begins anew, and not again and again: {calls}");
}

#[tokio::test(start_paused = true)]
async fn however_much_waits_for_a_dark_destination_it_is_called_some_thirty_times_a_day() {
    let relay = TestRelay::new();
    relay.start();
    for number in 0..100 {
        for origin in ["a.test", "c.test", "d.test"] {
            relay.left(origin, "b.test", &number.to_string(), 1).await;
        }
    }
    pass(24 * HOUR).await;
    let calls = relay.calls("b.test").len();
    assert!((25..=40).contains(&calls), "{calls}");
    assert!(relay.sent("b.test").is_empty(), "nothing large goes where nobody answers");

    relay.answers("b.test", Reply::Taken);
    let rules = relay.state().rules();
    relay.state().onward.heard(&name("b.test"), &rules.onward);
    pass(Duration::from_secs(60)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 300);
}

#[tokio::test(start_paused = true)]
async fn the_mail_of_an_origin_that_came_back_rests_and_that_of_others_does_not() {
    let relay = TestRelay::new();
    relay.start();
    relay.answers("b.test", Reply::Taken);
    let rules = relay.state().rules();
    relay.state().onward.heard(&name("a.test"), &rules.onward);
    relay.left("a.test", "b.test", "1", 1).await;
    relay.left("c.test", "b.test", "1", 1).await;
    pass(Duration::from_secs(100)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 1);
    pass(Duration::from_secs(30)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 2);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_one_room_comes_at_twenty_events_a_second() {
    let relay = TestRelay::new();
    relay.start();
    relay.answers("b.test", Reply::Taken);
    for number in 0..9 {
        relay.left("a.test", "b.test", &number.to_string(), 50).await;
    }
    pass(Duration::from_secs(60)).await;
    let calls = relay.sent("b.test");
    assert_eq!(calls.len(), 9);
    let took = calls[8].at.duration_since(calls[0].at);
    assert!((20..22).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waited_before_a_restart_is_called_for_over_a_minute() {
    let relay = TestRelay::new();
    for number in 0..200 {
        let destination = format!("b{number}.test");
        relay.answers(&destination, Reply::Taken);
        relay.left("a.test", &destination, "1", 1).await;
    }
    let restarted = TestRelay::on(relay.store.clone(), relay.network.clone());
    restarted.start();
    pass(Duration::from_secs(2)).await;
    let soon = restarted.sent_to_all();
    assert!(soon < 40, "{soon} at once");
    pass(Duration::from_secs(70)).await;
    assert_eq!(restarted.sent_to_all(), 200);
}

#[tokio::test(start_paused = true)]
async fn whoever_shows_life_before_a_restarted_relay_has_looked_is_called_at_once() {
    let relay = TestRelay::new();
    relay.answers("b.test", Reply::Taken);
    relay.left("a.test", "b.test", "1", 1).await;
    let restarted = TestRelay::on(relay.store.clone(), relay.network.clone());
    let rules = restarted.state().rules();
    restarted.state().onward.heard(&name("b.test"), &rules.onward);
    restarted.start();
    pass(Duration::from_millis(100)).await;
    assert_eq!(restarted.sent("b.test").len(), 1);
}

/// The record of b.test that names `r.test`, signed by `signer`.
fn record(signer: &str) -> Bytes {
    let relays = vec![RecordedRelay { server_name: name("r.test"), url: None, priority: 0 }];
    let record = RelayRecord { server_name: name("b.test"), relays, version: NOW };
    record.signed(&key_of(signer)).into()
}

async fn with_site(signer: &str) -> TestRelay {
    let relay = TestRelay::new();
    let document = mint(&name("b.test"), &key_of("b.test"), None, NOW.after(HOUR));
    relay.state().keys.trust(&document).await.unwrap();
    relay.network.files.lock().unwrap().insert("b.test".to_owned(), record(signer));
    relay.answers("r.test", Reply::Taken);
    relay.start();
    relay
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_server_that_can_not_be_reached_goes_to_the_relays_of_its_own_record() {
    let relay = with_site("b.test").await;
    for number in 0..5 {
        relay.left("a.test", "b.test", &number.to_string(), 1).await;
    }
    pass(Duration::from_secs(60)).await;

    let mailbox = relay.mailbox("b.test").await;
    assert_eq!((mailbox.passed_on_total, mailbox.delivered_total), (5, 0));
    let calls = relay.calls("r.test");
    assert_eq!(calls.len(), 5);
    assert_eq!(calls[0].target, "/_matrix/federation/v1/send_relay/0/@restante:b.test");
    let left = DepositBody::parse(calls[0].body.clone()).unwrap();
    assert!(left.extras.onward.is_none() && left.extras.keys.is_some());
    let claim = left.extras.proof.unwrap().claim().unwrap();
    claim.verify(&left.content, &key_of("a.test").public_key()).unwrap();
    assert!(relay.calls("b.test").len() <= 3, "the destination is tried first, and now and then");
}

#[tokio::test(start_paused = true)]
async fn a_relay_record_that_its_server_did_not_sign_leads_nowhere() {
    let relay = with_site("c.test").await;
    relay.left("a.test", "b.test", "1", 1).await;
    pass(HOUR).await;
    assert_eq!(relay.mailbox("b.test").await.depth.count, 1);
    assert!(relay.calls("r.test").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_calls_all_the_time_and_takes_nothing_is_sent_nothing_large() {
    let relay = TestRelay::new();
    relay.start();
    relay.left("a.test", "b.test", "1", 1).await;
    for _ in 0..1000 {
        relay.heard("b.test");
        pass(Duration::from_secs(5)).await;
    }
    assert!(relay.sent("b.test").is_empty());
    let calls = relay.calls("b.test").len();
    assert!((5..30).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn a_relay_of_a_record_has_mail_only_if_it_answers_as_a_relay_does() {
    let relay = with_site("b.test").await;
    let document = mint(&name("r.test"), &key_of("r.test"), None, NOW.after(HOUR));
    relay.state().keys.trust(&document).await.unwrap();
    relay.left("a.test", "b.test", "1", 1).await;
    for reply in [
        Reply::ReceiptOf("x.test"),
        Reply::Says(r#"{"org.restante.receipt":{"relay":"r.test","signatures":{}}}"#),
        Reply::Says("<html>This domain is for sale"),
        Reply::Says(""),
    ] {
        relay.answers("r.test", reply);
        let before = relay.calls("r.test").len();
        pass(2 * HOUR).await;
        assert!(relay.calls("r.test").len() > before, "it is asked");
        let mailbox = relay.mailbox("b.test").await;
        assert_eq!((mailbox.depth.count, mailbox.passed_on_total), (1, 0));
    }
    relay.answers("r.test", Reply::ReceiptOf("r.test"));
    pass(2 * HOUR).await;
    let mailbox = relay.mailbox("b.test").await;
    assert_eq!((mailbox.depth.count, mailbox.passed_on_total), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn mail_past_its_time_is_not_delivered_though_it_has_not_expired_yet() {
    let relay = TestRelay::new();
    relay.start();
    relay.left("a.test", "b.test", "1", 1).await;
    pass(Duration::from_secs(60)).await;
    relay.clock.advance(HOUR * 1001);
    relay.answers("b.test", Reply::Taken);
    relay.heard("b.test");
    pass(2 * HOUR).await;
    assert_eq!(relay.sent("b.test").len(), 0);
    assert_eq!(relay.mailbox("b.test").await.depth.count, 1);
}

/// Mail of a.test and c.test for b.test, which is away; strangers may have theirs delivered.
async fn with_mail_of_two() -> TestRelay {
    let mut config = RelayConfig::default();
    config.onward.origins = vec!["*".parse().unwrap()];
    let relay = TestRelay::with(Arc::default(), Arc::default(), &config);
    relay.start();
    for origin in ["a.test", "c.test"] {
        let registration = registration(origin, AdmittedBy::Nobody);
        relay.store.register(registration, None, NOW).await.unwrap();
        relay.lies_there(origin, "b.test", "1", 1).await;
    }
    pass(Duration::from_secs(60)).await;
    assert!(!relay.calls("b.test").is_empty() && relay.sent("b.test").is_empty());
    relay
}

/// b.test is back, and gets what c.test left, and nothing of a.test's.
async fn nothing_of_a_is_delivered(relay: &TestRelay) {
    relay.answers("b.test", Reply::Taken);
    relay.heard("b.test");
    pass(5 * HOUR).await;
    let sent = relay.sent("b.test");
    assert_eq!(sent.len(), 1);
    assert_eq!(Content::parse(sent[0].body.clone()).unwrap().origin(), Some(&name("c.test")));
    assert_eq!(relay.mailbox("b.test").await.depth.count, 1, "its recipient may collect it");
}

#[tokio::test(start_paused = true)]
async fn the_mail_of_an_origin_that_has_left_is_not_delivered_until_it_is_registered_again() {
    let relay = with_mail_of_two().await;
    let (a, registrations) = (name("a.test"), &relay.state().admission.registrations);
    registrations.change(&a).await.leave(&a, LeftMail::Drop, NOW).await.unwrap();
    nothing_of_a_is_delivered(&relay).await;

    let again = registration("a.test", AdmittedBy::Nobody);
    registrations.change(&a).await.register(again, None, NOW).await.unwrap();
    pass(2 * HOUR).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 2);
}

#[tokio::test(start_paused = true)]
async fn the_mail_of_an_origin_whose_registration_lapsed_is_not_delivered() {
    let relay = with_mail_of_two().await;
    let later = NOW.after(Duration::from_secs(1));
    relay.store.note_call(&name("c.test"), later).await.unwrap();
    let lapse =
        Lapse { called_before: later, unused_before: NOW, now: later, spared: Arc::new([]) };
    let lapsed = relay.state().admission.registrations.lapse(&lapse, None, 10).await.unwrap();
    assert_eq!(lapsed.registrations, [name("a.test")]);
    nothing_of_a_is_delivered(&relay).await;
}

#[tokio::test(start_paused = true)]
async fn any_number_of_destinations_that_hang_or_drip_hold_up_nobody_for_long() {
    let relay = TestRelay::new();
    relay.start();
    relay.answers("b.test", Reply::Taken);
    for number in 0..100 {
        let destination = format!("x{number}.test");
        relay.answers(&destination, if number % 2 == 0 { Reply::Hangs } else { Reply::Drips });
        relay.left("z.test", &destination, "1", 1).await;
    }
    pass(HOUR).await;
    relay.left("a.test", "b.test", "1", 1).await;
    pass(Duration::from_secs(2)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_always_fails_holds_up_its_own_origin_alone() {
    let relay = TestRelay::new();
    relay.start();
    relay.answers("b.test", Reply::TakesAllButPoison);
    relay.left("a.test", "b.test", "poison", 1).await;
    for number in 0..100 {
        relay.left("c.test", "b.test", &number.to_string(), 1).await;
    }
    pass(Duration::from_secs(120)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 100);

    pass(5 * HOUR).await;
    relay.left("c.test", "b.test", "later", 1).await;
    pass(Duration::from_secs(10)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 101);
    let poison = relay.sent("b.test").iter().filter(|call| call.target.contains("poison")).count();
    assert!((5..20).contains(&poison), "{poison}");
}

#[tokio::test(start_paused = true)]
async fn each_of_three_hundred_origins_has_its_turn() {
    let relay = TestRelay::new();
    relay.start();
    for origin in 0..300 {
        for number in 0..3 {
            relay.left(&format!("a{origin:03}.test"), "b.test", &number.to_string(), 0).await;
        }
    }
    relay.answers("b.test", Reply::Taken);
    relay.heard("b.test");
    // Two visits take the first of each.
    while relay.sent("b.test").len() < 300 {
        pass(Duration::from_millis(10)).await;
    }
    let first: std::collections::BTreeSet<_> =
        relay.sent("b.test")[..300].iter().map(|call| call.body.clone()).collect();
    assert_eq!(first.len(), 300, "nobody has a second turn before all had their first");
}

#[tokio::test(start_paused = true)]
async fn a_relay_of_a_record_that_refuses_is_left_alone_for_ten_minutes() {
    let relay = with_site("b.test").await;
    relay.network.replies.lock().unwrap().remove("r.test");
    for number in 0..50 {
        relay.left("a.test", "b.test", &number.to_string(), 1).await;
    }
    pass(Duration::from_secs(590)).await;
    assert_eq!(relay.calls("r.test").len(), 1);
    pass(2 * HOUR).await;
    let calls = relay.calls("r.test").len();
    assert!((2..=6).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_served_no_more_has_nothing_delivered_and_it_goes_on_when_it_is_again() {
    let relay = TestRelay::new();
    relay.start();
    relay.answers("b.test", Reply::Taken);
    let mut off = RelayConfig::default();
    off.onward.enabled = false;
    relay.state().take_up(&off);
    relay.left("a.test", "b.test", "1", 1).await;
    relay.heard("b.test");
    pass(2 * HOUR).await;
    assert!(relay.calls("b.test").is_empty());

    relay.state().take_up(&RelayConfig::default());
    pass(Duration::from_secs(10)).await;
    assert_eq!(relay.mailbox("b.test").await.delivered_total, 1);
}
