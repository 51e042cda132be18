//! Joining, leaving and keeping registrations up, over scripted relays.

use std::time::Duration;

use http::Method;
use restante_federation::Identity;
use restante_federation_proto::KeyDocument;
use restante_relay_api::endpoints::MAILBOX;
use restante_relay_api::{LeaveRequest, RecordedRelay, RelayRecord};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::test_site::{BEGINNING, OWN_NAME, Reply, Seen, TestSite, identity, name};

const GRANTED: &str = r#"{"time_to_live_ms":1000,"envelopes_max":5,"bytes_max":50,"origin_envelopes_max":2,"origin_bytes_max":20}"#;

const NO_INVITE: &str = r#"{"errcode":"M_FORBIDDEN","error":"An invite is wanted here"}"#;

const UNKNOWN: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"No such endpoint"}"#;

const RELAY: &str = "relay.test";

struct Node {
    site: TestSite,
    registrations: Registrations,
}

impl Node {
    async fn new() -> Self {
        Self::over(TestSite::new().await)
    }

    fn over(site: TestSite) -> Self {
        let registrations = Registrations::new(site.site.clone(), MailboxSection::default());
        Self { site, registrations }
    }

    async fn restarted(self) -> Self {
        let Self { site, registrations } = self;
        drop(registrations);
        Self::over(site.restarted().await)
    }

    fn answers(&self, relay: &str, status: u16, body: &'static str) {
        self.site.exchange.answer(&name(relay), Reply::Json(status, body));
    }

    async fn has(&self, relay: &str) {
        self.site.relays.add(name(OWN_NAME), name(relay).into()).await.unwrap();
    }

    async fn join(&self, line: &str) -> Result<RegistrationAnswer, String> {
        let line = line.parse().unwrap();
        self.registrations.join(&line).await.map_err(|error| error.to_string())
    }

    async fn leave(&self, relay: &str, mail: LeftMail) -> Result<Left, String> {
        let left = self.registrations.leave(&name(relay), mail).await;
        left.map_err(|error| error.to_string())
    }

    fn own(&self) -> Vec<String> {
        self.site.relays.own().iter().map(|known| known.peer.name.to_string()).collect()
    }

    fn state(&self, relay: &str) -> Option<StandingState> {
        self.registrations.of(&name(relay)).map(|standing| standing.state)
    }

    fn departure(&self, relay: &str) -> Option<DepartureState> {
        self.registrations.known(&name(relay))?.departure.map(|departure| departure.state)
    }

    /// Keeps registrations up for so long.
    async fn keep_up(&self, time: Duration) {
        let shutdown = CancellationToken::new();
        let running = self.registrations.clone().run(shutdown.clone());
        let ending = async {
            tokio::time::sleep(time).await;
            shutdown.cancel();
        };
        self.site.run(async { tokio::join!(running, ending) }).await;
    }

    fn asked(&self, relay: &str) -> Vec<Seen> {
        let seen = self.site.exchange.seen_by(&name(relay)).into_iter();
        seen.filter(|seen| seen.target == MAILBOX).collect()
    }
}

fn request(seen: &Seen) -> RegistrationRequest {
    assert_eq!((&seen.method, seen.target.as_str()), (&Method::PUT, MAILBOX));
    serde_json::from_slice(&seen.body).unwrap()
}

fn recorded(seen: &Seen) -> RelayRecord {
    RelayRecord::parse(request(seen).record.get().as_bytes(), BEGINNING).unwrap()
}

fn names(record: &RelayRecord) -> Vec<&str> {
    record.relays.iter().map(|relay| relay.server_name.as_str()).collect()
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_relay_that_grants_it_is_outgoing_until_it_says_otherwise() {
    let node = Node::new().await;
    let line = "restante:relay.test?url=http:%2F%2F127.0.0.1:7&invite=sesame";
    let outgoing = r#"{"time_to_live_ms":1000,"envelopes_max":5,"bytes_max":50,"origin_envelopes_max":2,"origin_bytes_max":20,"outgoing":{"envelopes_max":9,"bytes_max":90,"destination_envelopes_max":3,"destination_bytes_max":30}}"#;
    node.answers(RELAY, 200, outgoing);
    node.join(line).await.unwrap();
    let relays = node.site.relays.outgoing();
    assert_eq!(relays.iter().map(|relay| relay.name.as_str()).collect::<Vec<_>>(), [RELAY]);

    node.answers(RELAY, 200, GRANTED);
    node.join(line).await.unwrap();
    assert_eq!(node.site.relays.outgoing(), []);
}

#[tokio::test(start_paused = true)]
async fn a_relay_is_joined_with_the_line_and_holds_our_mail_from_then_on() {
    let node = Node::new().await;
    node.has("first.test").await;
    node.answers(RELAY, 200, GRANTED);
    let granted = node.join("restante:relay.test?url=http:%2F%2F127.0.0.1:7&invite=sesame").await;
    assert_eq!(granted.unwrap().envelopes_max, 5);

    let asked = &node.asked(RELAY)[0];
    let request = request(asked);
    assert_eq!(request.invite.as_deref(), Some("sesame"));
    let own = &node.site.identity;
    let key = own.key.public_key();
    let record = request.record.get().as_bytes();
    let record = RelayRecord::verify(record, &own.server_name, (own.key.id(), &key), BEGINNING);
    assert_eq!(names(&record.unwrap()), ["first.test", RELAY]);
    let keys = KeyDocument::parse(request.keys.as_ref().unwrap().get().to_owned().into()).unwrap();
    assert_eq!(keys.server_name(), &own.server_name);
    assert!(asked.headers.contains_key("x-request-id"));
    assert!(request.outgoing, "it asks for that everywhere");
    assert_eq!(node.site.relays.outgoing(), [], "and this relay does not do it");

    assert_eq!(node.own(), ["first.test", RELAY]);
    assert_eq!(node.state(RELAY), Some(StandingState::Registered));
    let node = node.restarted().await;
    assert_eq!(node.own(), ["first.test", RELAY]);
    let url = node.site.relays.own()[1].peer.url.as_ref().map(ToString::to_string);
    assert_eq!(url.as_deref(), Some("http://127.0.0.1:7"));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_refuses_is_not_joined_and_its_words_are_told() {
    let node = Node::new().await;
    node.answers(RELAY, 403, NO_INVITE);
    let refused = node.join("restante:relay.test?invite=used").await.unwrap_err();
    assert!(refused.contains("An invite is wanted here"), "{refused}");
    assert!(refused.contains("restante relays join LINE"), "{refused}");
    node.answers(RELAY, 404, "{}");
    let unknown = node.join("restante:relay.test").await.unwrap_err();
    assert!(unknown.contains("takes no registrations"), "{unknown}");
    node.site.exchange.answer(&name(RELAY), Reply::Refused);
    assert!(node.join("restante:relay.test").await.unwrap_err().contains("could not be asked"));
    let key = ServerName::of_key(&node.site.identity.key.public_key());
    assert!(node.join(&format!("restante:{key}")).await.unwrap_err().contains("is a key"));
    assert!(node.join("restante:relay.test?url=ftp:x").await.unwrap_err().contains("URL"));
    assert_eq!(node.own(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_line_does_not_lead_a_known_relay_to_another_url() {
    let node = Node::new().await;
    node.answers(RELAY, 200, GRANTED);
    let url = "restante:relay.test?url=http:%2F%2F127.0.0.1:7";
    node.join(url).await.unwrap();
    let refused = node.join("restante:relay.test?url=http:%2F%2F127.0.0.1:8").await.unwrap_err();
    assert!(refused.contains("is known at http://127.0.0.1:7"), "{refused}");
    assert!(refused.contains("restante relays remove a.test relay.test"), "{refused}");
    assert!(refused.contains("relays add a.test relay.test --url http://127.0.0.1:8"), "{refused}");
    assert_eq!(node.asked(RELAY).len(), 1, "nothing was asked there");
    node.join(url).await.unwrap();
    node.join("restante:relay.test").await.unwrap();
    let known = node.site.relays.own()[0].peer.url.as_ref().map(ToString::to_string);
    assert_eq!(known.as_deref(), Some("http://127.0.0.1:7"));
}

#[tokio::test(start_paused = true)]
async fn requests_are_signed_by_the_relays_clock_where_ours_is_wrong() {
    let node = Node::new().await;
    let clock = Reply::Json(403, r#"{"errcode":"M_FORBIDDEN","now":1700009000000}"#);
    node.site.exchange.script(&name(RELAY), [clock.clone(), Reply::Json(200, GRANTED)]);
    node.join("restante:relay.test").await.unwrap();
    let signed_at = request(&node.asked(RELAY)[1]).signed_at;
    assert_eq!(signed_at.as_millis(), 1_700_009_000_000);

    let clock = Reply::Json(403, r#"{"errcode":"M_FORBIDDEN","now":1700003600000}"#);
    node.site.exchange.script(&name(RELAY), [clock, Reply::Json(200, "{}")]);
    assert_eq!(node.leave(RELAY, LeftMail::Drop).await, Ok(Left::Left));
    let leave: LeaveRequest = serde_json::from_slice(&node.asked(RELAY)[3].body).unwrap();
    assert_eq!(leave.signed_at.as_millis(), 1_700_003_600_000);
}

#[tokio::test(start_paused = true)]
async fn a_relays_clock_has_no_part_in_the_record_that_all_the_world_sees() {
    let node = Node::new().await;
    node.has(RELAY).await;
    let early = Reply::Json(403, r#"{"errcode":"M_FORBIDDEN","now":1000}"#);
    node.site.exchange.script(&name(RELAY), [early.clone(), Reply::Json(200, GRANTED)]);
    node.keep_up(Duration::from_secs(10)).await;
    let asked = node.asked(RELAY);
    let records = [0, 1].map(|n: usize| request(&asked[n]).record.get().to_owned());
    assert_eq!(records[0], records[1]);
    assert_eq!(request(&asked[1]).signed_at.as_millis(), 1000);

    let node = Node::new().await;
    node.has(RELAY).await;
    let known = BEGINNING.after(MINUTE);
    let (refused, held) = (Reply::Json(400, OLD_RECORD), held(&node.site.identity, RELAY, known));
    node.site.exchange.script(&name(RELAY), [refused, held, early, Reply::Json(200, GRANTED)]);
    node.keep_up(Duration::from_secs(10)).await;
    let asked = node.asked(RELAY);
    let versions: Vec<_> = asked.iter().map(|seen| recorded_later(seen).version).collect();
    assert!(versions.len() == 3 && versions[2] > known, "{versions:?}");
}

#[tokio::test(start_paused = true)]
async fn leaving_is_not_signed_for_a_time_far_ahead() {
    let node = Node::new().await;
    node.has(RELAY).await;
    let clock = Reply::Json(403, r#"{"errcode":"M_FORBIDDEN","now":1700003601000}"#);
    node.site.exchange.script(&name(RELAY), [clock, Reply::Json(200, "{}")]);
    let refused = node.leave(RELAY, LeftMail::Drop).await.unwrap_err();
    assert!(refused.contains("set this machine's clock"), "{refused}");
    assert_eq!(node.asked(RELAY).len(), 1, "nothing was signed by its clock");
    assert_eq!(node.site.relays.own()[0].departure, None);
}

#[tokio::test(start_paused = true)]
async fn own_relays_are_told_at_the_start_when_something_changes_and_once_a_day() {
    let node = Node::new().await;
    node.has(RELAY).await;
    node.answers(RELAY, 200, GRANTED);
    node.answers("second.test", 200, GRANTED);
    node.keep_up(MINUTE).await;
    let asked = node.asked(RELAY);
    assert_eq!(asked.len(), 1);
    assert_eq!((request(&asked[0]).invite, names(&recorded(&asked[0]))), (None, vec![RELAY]));

    node.registrations.shared.relays.lock().unwrap().clear();
    let changes = async {
        tokio::time::sleep(MINUTE).await;
        node.has("second.test").await;
        tokio::time::sleep(MINUTE).await;
        let block = MailboxSection::default();
        node.registrations.terms().send_replace(block.blocking("*.evil.test"));
        tokio::time::sleep(MINUTE).await;
    };
    tokio::join!(node.keep_up(4 * MINUTE), changes);
    let asked = node.asked(RELAY);
    assert_eq!(asked.len(), 4);
    let second = recorded(&asked[2]);
    assert_eq!(names(&second), [RELAY, "second.test"]);
    assert!(second.version > recorded(&asked[1]).version);
    assert_eq!(recorded(&asked[3]).version, second.version, "it says the same");
    assert!(!request(&asked[3]).senders.permit(&name("x.evil.test")));
    assert_eq!(node.asked("second.test").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_wants_an_invite_is_shown_with_what_to_do_and_asked_again_later() {
    let node = Node::new().await;
    node.has(RELAY).await;
    node.has("old.test").await;
    node.has("older.test").await;
    node.has("proxy.test").await;
    node.answers(RELAY, 403, NO_INVITE);
    node.answers("old.test", 404, "");
    node.answers("older.test", 405, UNKNOWN);
    node.answers("proxy.test", 405, "<h1>Not Allowed</h1>");
    node.keep_up(3 * MINUTE).await;
    let standing = node.registrations.of(&name(RELAY)).unwrap();
    assert_eq!(standing.state, StandingState::Refused);
    assert_eq!(standing.reason.as_deref(), Some("An invite is wanted here"));
    assert!(standing.advice.unwrap().contains("restante relays join LINE"));
    assert!((2..6).contains(&node.asked(RELAY).len()), "{}", node.asked(RELAY).len());
    for old in ["old.test", "older.test"] {
        assert_eq!(node.state(old), Some(StandingState::NotOffered));
        assert_eq!(node.asked(old).len(), 1, "it is fine as it is");
    }
    assert!(node.asked("proxy.test").len() > 1, "the relay itself did not answer");
    let own = ["old.test", "older.test", "proxy.test", RELAY];
    assert_eq!(node.own(), own, "whether it serves us, collecting shows");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_and_keeps_its_mail_collects_it_first() {
    let node = Node::new().await;
    node.has(RELAY).await;
    node.has("second.test").await;
    node.answers(RELAY, 200, "{}");
    node.answers("second.test", 200, GRANTED);
    let turn = node.registrations.turn(&name(RELAY));
    assert_eq!(node.leave(RELAY, LeftMail::Keep).await, Ok(Left::Emptying));
    let turn_after = node.registrations.turn(&name(RELAY));
    assert!(Arc::ptr_eq(&turn, &turn_after), "who waits for it has the same one");
    let asked = &node.asked(RELAY)[0];
    assert_eq!(asked.method, Method::DELETE);
    assert!(asked.body.starts_with(br#"{"mail":"keep""#));
    assert_eq!(node.own(), [RELAY, "second.test"], "it is collected from");
    node.keep_up(MINUTE).await;
    assert_eq!(node.asked(RELAY).len(), 1, "it is not registered at again");
    assert_eq!(names(&recorded(&node.asked("second.test")[0])), ["second.test"]);

    node.site.relays.emptied(&name(RELAY), node.site.site.clock.now()).await;
    assert_eq!(node.own(), ["second.test"]);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_refuses_to_be_left_stays_what_it_was() {
    let node = Node::new().await;
    node.has(RELAY).await;
    let refusal = r#"{"errcode":"M_FORBIDDEN","error":"Not today"}"#;
    node.answers(RELAY, 403, refusal);
    let refused = node.leave(RELAY, LeftMail::Drop).await.unwrap_err();
    assert!(refused.contains("Not today") && refused.contains("was not left"), "{refused}");
    assert_eq!(node.departure(RELAY), None);

    node.answers(RELAY, 200, "{}");
    assert_eq!(node.leave(RELAY, LeftMail::Keep).await, Ok(Left::Emptying));
    node.answers(RELAY, 403, refusal);
    node.leave(RELAY, LeftMail::Drop).await.unwrap_err();
    assert_eq!(node.departure(RELAY), Some(DepartureState::Told));
    let other = node.leave("other.test", LeftMail::Drop).await.unwrap_err();
    assert!(other.contains("none of this server's relays"), "{other}");
    node.answers(RELAY, 404, UNKNOWN);
    assert_eq!(node.leave(RELAY, LeftMail::Drop).await, Ok(Left::Left));
    assert_eq!(node.own(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_may_not_have_heard_that_we_leave_is_told_again() {
    let lost = [
        Reply::Refused,
        Reply::HangsAtAnswer,
        Reply::Json(502, "{}"),
        Reply::Json(403, "<h1>Closed</h1>"),
        Reply::Json(404, "<h1>Not Found</h1>"),
        Reply::Json(404, r#"{"errcode":"M_NOT_FOUND"}"#),
        Reply::Json(405, "{}"),
        Reply::Json(429, r#"{"errcode":"M_LIMIT_EXCEEDED"}"#),
    ];
    for lost in lost {
        let node = Node::new().await;
        node.has(RELAY).await;
        let granted = Reply::Json(200, GRANTED);
        node.site.exchange.script(&name(RELAY), [granted.clone(), lost.clone(), lost, granted]);
        let leaving = async {
            node.site.exchange.wait_for(1).await;
            tokio::time::sleep(MINUTE).await;
            let untold = node.leave(RELAY, LeftMail::Drop).await.unwrap_err();
            assert!(untold.contains("told again"), "{untold}");
            assert_eq!(node.departure(RELAY), Some(DepartureState::Asked));
        };
        tokio::join!(node.keep_up(5 * MINUTE), leaving);
        let methods: Vec<_> = node.asked(RELAY).into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, [Method::PUT, Method::DELETE, Method::DELETE, Method::DELETE]);
        assert_eq!(node.own(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_was_not_told_before_a_crash_is_told_after_it() {
    let node = Node::new().await;
    node.has(RELAY).await;
    node.registrations.depart(&name(RELAY), LeftMail::Drop, DepartureState::Asked).await.unwrap();
    let node = node.restarted().await;
    node.answers(RELAY, 200, "{}");
    node.keep_up(MINUTE).await;
    assert_eq!(node.asked(RELAY)[0].method, Method::DELETE);
    assert_eq!(node.own(), Vec::<String>::new());
}

const OLD_RECORD: &str = r#"{"errcode":"M_INVALID_PARAM","error":"A relay record of version 1700000060000 is known here; make one of a later version"}"#;

/// What the relay holds: our record of this version, naming `relay`, signed by `signer`.
fn held(signer: &Identity, relay: &str, version: Timestamp) -> Reply {
    let relay = RecordedRelay { server_name: name(relay), url: None, priority: 0 };
    let record = RelayRecord { server_name: name(OWN_NAME), relays: vec![relay], version };
    Reply::Page(200, "application/json", record.signed(&signer.key).into())
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_restored_from_an_old_backup_goes_above_the_record_that_its_relay_knows() {
    let node = Node::new().await;
    node.has(RELAY).await;
    let known = BEGINNING.after(MINUTE);
    let refused = Reply::Json(400, OLD_RECORD);
    let held = held(&node.site.identity, "another.test", known);
    node.site.exchange.script(&name(RELAY), [refused, held, Reply::Json(200, GRANTED)]);
    node.keep_up(MINUTE).await;
    assert_eq!(node.state(RELAY), Some(StandingState::Registered));
    let asked = node.asked(RELAY);
    let versions: Vec<_> = asked.iter().map(|seen| recorded_later(seen).version).collect();
    assert!(versions.len() == 2 && versions[0] <= known && versions[1] > known, "{versions:?}");
    assert_eq!(names(&recorded_later(&asked[1])), [RELAY]);
}

#[tokio::test(start_paused = true)]
async fn a_relay_can_not_push_our_record_ahead_by_one_that_we_did_not_sign() {
    for (signer, version) in [
        (identity("liar.test"), BEGINNING.after(MINUTE)),
        (identity(OWN_NAME), BEGINNING.after(30 * 24 * 60 * MINUTE)),
    ] {
        let node = Node::new().await;
        node.has(RELAY).await;
        let refused = Reply::Json(400, OLD_RECORD);
        let held = held(&signer, RELAY, version);
        node.site.exchange.script(&name(RELAY), [refused.clone(), held, refused]);
        node.keep_up(Duration::from_secs(10)).await;
        assert_eq!(node.state(RELAY), Some(StandingState::Refused));
        assert_eq!(node.asked(RELAY).len(), 1);
    }
}

fn recorded_later(seen: &Seen) -> RelayRecord {
    let later = BEGINNING.after(10 * MINUTE);
    RelayRecord::parse(request(seen).record.get().as_bytes(), later).unwrap()
}
