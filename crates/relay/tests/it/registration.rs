//! Asking to be served, and leaving.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use restante_federation_proto::{Clock, mint};
use restante_mailbox::{Invite, InviteHash, InviteOutcome, MemoryStore, Registry};
use restante_relay::Stores;
use restante_relay_api::endpoints::MAILBOX;
use restante_relay_api::{LeftMail, RegistrationRequest, RelayRecord};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::harness::{Answer, TestRelay, TestServer, collect_all, texts};

const HOUR: Duration = Duration::from_secs(3600);
const TOKEN: &str = "sesame";

/// A relay whose store the test can reach.
struct Site {
    relay: TestRelay,
    store: Arc<MemoryStore>,
}

impl Site {
    async fn start(config: &str) -> Self {
        let store = Arc::new(MemoryStore::new());
        Self { relay: TestRelay::start_on(Stores::of(store.clone()), config).await, store }
    }

    async fn invite(&self, token: &str, server: Option<&TestServer>) {
        let now = self.relay.clock.now();
        let invite = Invite {
            hash: InviteHash::of(token.as_bytes()),
            server: server.map(|server| server.name().clone()),
            note: String::new(),
            created_at: now,
            expires_at: now.after(HOUR),
        };
        assert!(matches!(self.store.invite(invite).await.unwrap(), InviteOutcome::Created(_)));
    }

    async fn leave(&self, from: &TestServer, to: &TestServer, text: &str) -> Answer {
        from.leave(&self.relay, to, text, &from.transaction(&self.relay, text)).await
    }

    /// Another moment, so that what is signed later bears a later time.
    fn a_moment_passes(&self) {
        self.relay.clock.advance(Duration::from_secs(1));
    }
}

fn with_invite(request: RegistrationRequest, token: &str) -> RegistrationRequest {
    RegistrationRequest { invite: Some(token.to_owned()), ..request }
}

#[tokio::test]
async fn a_relay_for_invited_servers_serves_nobody_else() {
    let site = Site::start("serve = \"invited\"").await;
    let (relay, a, b) = (&site.relay, TestServer::new(1), TestServer::new(2));
    site.leave(&a, &b, "too early").await.assert_refused(403, "M_FORBIDDEN");
    let request = b.registration(relay);
    b.register(relay, &request).await.assert_refused(403, "M_FORBIDDEN");

    site.invite(TOKEN, None).await;
    site.a_moment_passes();
    b.register(relay, &with_invite(b.registration(relay), TOKEN)).await.assert_ok();
    site.leave(&a, &b, "welcome").await.assert_ok();
    assert_eq!(texts(&b.collect(relay, &collect_all(relay)).await), ["welcome"]);
}

#[tokio::test]
async fn an_invite_admits_one_server_and_its_owner_again() {
    let site = Site::start("serve = \"invited\"").await;
    let (relay, b, c) = (&site.relay, TestServer::new(2), TestServer::new(3));
    site.invite(TOKEN, None).await;
    b.register(relay, &with_invite(b.registration(relay), TOKEN)).await.assert_ok();
    let used = c.register(relay, &with_invite(c.registration(relay), TOKEN)).await;
    used.assert_refused(403, "M_FORBIDDEN");
    site.a_moment_passes();
    b.register(relay, &with_invite(b.registration(relay), TOKEN)).await.assert_ok();
    site.a_moment_passes();
    b.register(relay, &b.registration(relay)).await.assert_ok();
}

#[tokio::test]
async fn an_invite_that_is_unknown_used_expired_or_anothers_is_refused_in_the_same_words() {
    let site = Site::start("serve = \"invited\"").await;
    let (relay, b, c) = (&site.relay, TestServer::new(2), TestServer::new(3));
    site.invite("of c", Some(&c)).await;
    site.invite("used", None).await;
    site.invite("expired", None).await;
    c.register(relay, &with_invite(c.registration(relay), "used")).await.assert_ok();
    relay.clock.advance(HOUR);
    let mut answers = Vec::new();
    for token in ["unknown", "of c", "used", "expired", ""] {
        site.a_moment_passes();
        let answer = b.register(relay, &with_invite(b.registration(relay), token)).await;
        answer.assert_refused(403, "M_FORBIDDEN");
        answers.push(answer.body);
    }
    site.a_moment_passes();
    answers.push(b.register(relay, &b.registration(relay)).await.body);
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

#[tokio::test]
async fn a_listed_server_needs_neither_invite_nor_registration() {
    let site = Site::start("serve = \"listed\"\nlisted = [\"*.b.example\"]").await;
    let (a, b, c) = (
        TestServer::new(1),
        TestServer::named("x.b.example", 2),
        TestServer::named("c.example", 3),
    );
    site.leave(&a, &b, "m").await.assert_ok();
    site.leave(&a, &c, "m").await.assert_refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn the_answer_says_what_is_granted() {
    let site = Site::start("[mailbox]\ntime_to_live = \"2d\"\norigin_envelopes_max = 7").await;
    let (relay, b) = (&site.relay, TestServer::new(2));
    let mut request = b.registration(relay);
    let granted = b.register(relay, &request).await.assert_ok();
    let two_days = 2 * 24 * 3_600_000;
    assert_eq!(granted["time_to_live_ms"], two_days);
    assert_eq!(
        (&granted["envelopes_max"], &granted["origin_envelopes_max"]),
        (&json!(100_000), &json!(7))
    );
    for (asked, kept) in [(3_600_000, 3_600_000), (two_days * 2, two_days)] {
        site.a_moment_passes();
        request = b.registration(relay);
        request.time_to_live_ms = Some(asked);
        let granted = b.register(relay, &request).await.assert_ok();
        assert_eq!(granted["time_to_live_ms"], kept);
    }
    site.a_moment_passes();
    request = b.registration(relay);
    request.time_to_live_ms = Some(3_599_999);
    b.register(relay, &request).await.assert_refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn the_owner_says_who_may_leave_mail_and_may_change_it() {
    let site = Site::start("").await;
    let (relay, a, b, c) =
        (&site.relay, TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let senders = |json: Value| serde_json::from_value(json).unwrap();
    let mut request = b.registration(relay);
    request.senders = senders(json!({ "allow": [a.name()] }));
    b.register(relay, &request).await.assert_ok();
    site.leave(&a, &b, "allowed").await.assert_ok();
    site.leave(&c, &b, "not allowed").await.assert_refused(403, "M_FORBIDDEN");

    site.a_moment_passes();
    request = b.registration(relay);
    request.senders = senders(json!({ "block": [a.name()] }));
    b.register(relay, &request).await.assert_ok();
    site.leave(&a, &b, "blocked").await.assert_refused(403, "M_FORBIDDEN");
    site.leave(&c, &b, "anyone else").await.assert_ok();
    assert_eq!(texts(&b.collect(relay, &collect_all(relay)).await), ["allowed", "anyone else"]);
}

#[tokio::test]
async fn a_record_must_be_the_callers_own_and_signed() {
    let site = Site::start("").await;
    let (relay, b, c) = (&site.relay, TestServer::new(2), TestServer::new(3));
    let now = relay.clock.now();
    let raw = |text: String| RawValue::from_string(text).unwrap();
    let signed = b.record(relay, now).get().to_owned();
    let records = [
        ("another server's", c.record(relay, now)),
        ("changed", raw(signed.replace("\"priority\":0", "\"priority\":1"))),
        ("from the future", b.record(relay, now.after(HOUR * 25))),
        (
            "unsigned",
            raw(json!({ "server_name": b.name(), "relays": [], "version": 1 }).to_string()),
        ),
        ("no record", raw("{}".into())),
    ];
    for (case, record) in records {
        site.a_moment_passes();
        let request = RegistrationRequest { record, ..b.registration(relay) };
        let answer = b.register(relay, &request).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["errcode"]),
            (400, &json!("M_BAD_JSON")),
            "{case}"
        );
    }
}

#[tokio::test]
async fn the_version_of_a_record_never_goes_back() {
    let site = Site::start("").await;
    let (relay, b) = (&site.relay, TestServer::new(2));
    let now = relay.clock.now();
    let at =
        |version| RegistrationRequest { record: b.record(relay, version), ..b.registration(relay) };
    b.register(relay, &at(now)).await.assert_ok();
    site.a_moment_passes();
    b.register(relay, &at(now)).await.assert_ok();
    site.a_moment_passes();
    let older = b.register(relay, &at(now.before(HOUR))).await;
    older.assert_refused(400, "M_INVALID_PARAM");
    site.a_moment_passes();
    // Two records of one version would be believed in different places.
    let nowhere = RelayRecord { server_name: b.name().clone(), relays: vec![], version: now };
    let nowhere = String::from_utf8(nowhere.signed(&b.identity.key)).unwrap();
    let other = RegistrationRequest {
        record: RawValue::from_string(nowhere).unwrap(),
        ..b.registration(relay)
    };
    b.register(relay, &other).await.assert_refused(400, "M_INVALID_PARAM");
    site.a_moment_passes();
    b.register(relay, &at(now.after(HOUR))).await.assert_ok();
    let known = known_record(relay, &b).await.assert_ok();
    assert_eq!(known["version"], now.after(HOUR).as_millis());
}

fn record_target(server: &TestServer) -> String {
    format!("/_matrix/federation/unstable/org.restante/relays/{}", server.name())
}

async fn known_record(relay: &TestRelay, server: &TestServer) -> Answer {
    TestServer::new(9).call(relay, Method::GET, &record_target(server), "").await
}

#[tokio::test]
async fn the_newest_record_is_told_to_whoever_may_leave_mail() {
    let site = Site::start("").await;
    let (relay, b) = (&site.relay, TestServer::new(2));
    known_record(relay, &b).await.assert_refused(404, "M_NOT_FOUND");
    let request = b.registration(relay);
    b.register(relay, &request).await.assert_ok();
    let known = known_record(relay, &b).await;
    known.assert_ok();
    assert_eq!(known.body, request.record.get());

    let nobody_is_registered = known_record(relay, &TestServer::new(3)).await;
    let asker = TestServer::new(9);
    for senders in [json!({ "allow": [] }), json!({ "block": [asker.name()] })] {
        site.a_moment_passes();
        let senders = serde_json::from_value(senders).unwrap();
        let request = RegistrationRequest { senders, ..b.registration(relay) };
        b.register(relay, &request).await.assert_ok();
        let refused = known_record(relay, &b).await;
        refused.assert_refused(404, "M_NOT_FOUND");
        assert_eq!(refused.body, nobody_is_registered.body, "as if it were not registered");
        let own = b.call(relay, Method::GET, &record_target(&b), "").await;
        assert_eq!(own.body, request.record.get());
    }
    let bad = "/_matrix/federation/unstable/org.restante/relays/%20";
    let answer = TestServer::new(9).call(relay, Method::GET, bad, "").await;
    answer.assert_refused(400, "M_INVALID_PARAM");
    relay.plain(Method::GET, bad, "").await.assert_refused(401, "M_UNAUTHORIZED");
}

#[tokio::test]
async fn who_leaves_has_its_mail_dropped_or_kept_as_it_says() {
    let site = Site::start("serve = \"invited\"").await;
    let (relay, a, b) = (&site.relay, TestServer::new(1), TestServer::new(2));
    for (token, mail, left) in
        [("one", LeftMail::Keep, vec!["one"]), ("two", LeftMail::Drop, Vec::new())]
    {
        site.invite(token, None).await;
        site.a_moment_passes();
        b.register(relay, &with_invite(b.registration(relay), token)).await.assert_ok();
        site.leave(&a, &b, token).await.assert_ok();
        site.a_moment_passes();
        b.quit(relay, mail).await.assert_ok();
        assert_eq!(texts(&b.collect(relay, &collect_all(relay)).await), left);
        site.leave(&a, &b, "too late").await.assert_refused(403, "M_FORBIDDEN");
    }
    site.a_moment_passes();
    b.quit(relay, LeftMail::Keep).await.assert_ok();
}

#[tokio::test]
async fn who_never_registered_at_an_open_relay_may_have_what_is_there_dropped() {
    let site = Site::start("").await;
    let (relay, a, b) = (&site.relay, TestServer::new(1), TestServer::new(2));
    site.leave(&a, &b, "unwanted").await.assert_ok();
    b.quit(relay, LeftMail::Drop).await.assert_ok();
    assert!(b.collect(relay, &collect_all(relay)).await.envelopes.is_empty());
}

#[tokio::test]
async fn a_request_to_register_or_leave_is_good_for_a_minute_and_says_the_time_otherwise() {
    let site = Site::start("").await;
    let (relay, b) = (&site.relay, TestServer::new(2));
    let request = b.registration(relay);
    relay.clock.advance(Duration::from_secs(61));
    let refused = b.register(relay, &request).await;
    refused.assert_refused(403, "M_FORBIDDEN");
    assert_eq!(refused.json()["now"], relay.clock.now().as_millis());
}

#[tokio::test]
async fn a_registration_that_was_refused_puts_off_none_that_was_signed_before() {
    let site = Site::start("serve = \"invited\"").await;
    let (relay, b) = (&site.relay, TestServer::new(2));
    site.invite(TOKEN, None).await;
    let invited = with_invite(b.registration(relay), TOKEN);
    site.a_moment_passes();
    b.register(relay, &b.registration(relay)).await.assert_refused(403, "M_FORBIDDEN");
    b.register(relay, &invited).await.assert_ok();
}

#[tokio::test]
async fn a_replayed_registration_or_leave_changes_nothing_back() {
    let site = Site::start("").await;
    let (relay, a, b) = (&site.relay, TestServer::new(1), TestServer::new(2));
    let registration = b.registration(relay);
    b.register(relay, &registration).await.assert_ok();
    b.register(relay, &registration).await.assert_ok();
    site.a_moment_passes();
    let leave = json!({ "mail": "drop", "signed_at": relay.clock.now() }).to_string();
    b.call(relay, Method::DELETE, MAILBOX, &leave).await.assert_ok();
    b.register(relay, &registration).await.assert_refused(403, "M_FORBIDDEN");
    known_record(relay, &b).await.assert_refused(404, "M_NOT_FOUND");

    site.a_moment_passes();
    b.register(relay, &b.registration(relay)).await.assert_ok();
    site.leave(&a, &b, "kept").await.assert_ok();
    b.call(relay, Method::DELETE, MAILBOX, &leave).await.assert_refused(403, "M_FORBIDDEN");
    assert_eq!(texts(&b.collect(relay, &collect_all(relay)).await), ["kept"]);
}

/// A registration of a server that nobody can ask for its keys, with its document.
fn hidden(relay: &TestRelay, server: &TestServer) -> RegistrationRequest {
    let week = relay.clock.now().after(HOUR * 24 * 7);
    let document = mint(server.name(), &server.identity.key, None, week);
    let document = String::from_utf8(document.raw().to_vec()).unwrap();
    RegistrationRequest {
        keys: Some(RawValue::from_string(document).unwrap()),
        ..server.registration(relay)
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_asked_for_its_keys_registers_with_an_invite_in_its_name() {
    let site = Site::start("serve = \"invited\"").await;
    let (relay, a, b) = (&site.relay, TestServer::new(1), TestServer::named("hidden.example", 2));
    site.invite("anybody's", None).await;
    site.invite(TOKEN, Some(&b)).await;
    for token in ["anybody's", "unknown"] {
        site.a_moment_passes();
        let request = with_invite(hidden(relay, &b), token);
        b.register(relay, &request).await.assert_refused(503, "M_UNKNOWN");
    }
    // Somebody else who has seen the invite, but has other keys than the document.
    let impostor = TestServer::named("hidden.example", 3);
    let stolen = with_invite(hidden(relay, &impostor), TOKEN);
    let mismatched = RegistrationRequest { keys: hidden(relay, &b).keys, ..stolen };
    impostor.register(relay, &mismatched).await.assert_refused(503, "M_UNKNOWN");
    assert!(!believes_keys_of(relay, &b).await);

    site.a_moment_passes();
    b.register(relay, &with_invite(hidden(relay, &b), TOKEN)).await.assert_ok();
    site.leave(&a, &b, "m").await.assert_ok();
    assert_eq!(texts(&b.collect(relay, &collect_all(relay)).await), ["m"]);
}

/// Whether it takes a signature of that server; as a notary it tells others of keys that it has fetched itself alone.
async fn believes_keys_of(relay: &TestRelay, server: &TestServer) -> bool {
    let target = format!("/_matrix/key/v2/query/{}", server.name());
    let answer = relay.plain(Method::GET, &target, "").await.assert_ok();
    assert_eq!(answer["server_keys"], json!([]), "nobody could fetch them");
    server.collect_raw(relay, &collect_all(relay)).await.status == 200
}

#[tokio::test]
async fn a_registration_that_is_late_or_comes_too_often_plants_no_keys_with_its_invite() {
    let config = "serve = \"invited\"\n[limits]\nnewcomers_per_address_per_minute = 1";
    let site = Site::start(config).await;
    let (relay, b) = (&site.relay, TestServer::named("hidden.example", 2));
    site.invite(TOKEN, Some(&b)).await;
    let signed = |request: &RegistrationRequest| {
        let body = String::from_utf8(request.to_canonical_json()).unwrap();
        b.request(relay, Method::PUT, MAILBOX, &body)
    };
    let request = with_invite(hidden(relay, &b), TOKEN);
    let other = TestServer::named("other.example", 3);
    let stranger = other.request(relay, Method::PUT, MAILBOX, "{}");
    relay.send_from("203.0.113.9", stranger).await.assert_refused(503, "M_UNKNOWN");
    let too_often = relay.send_from("203.0.113.9", signed(&request)).await;
    too_often.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert!(!believes_keys_of(relay, &b).await);

    relay.clock.advance(Duration::from_secs(61));
    let late = relay.send(signed(&request)).await;
    late.assert_refused(403, "M_FORBIDDEN");
    assert_eq!(late.json()["now"], relay.clock.now().as_millis());
    assert!(!believes_keys_of(relay, &b).await);
    b.register(relay, &with_invite(hidden(relay, &b), TOKEN)).await.assert_ok();
    assert!(believes_keys_of(relay, &b).await);
}

#[tokio::test]
async fn the_keys_of_a_server_that_cannot_be_asked_stay_believed_as_long_as_it_brings_newer_documents()
 {
    let site = Site::start("serve = \"invited\"").await;
    let (relay, b) = (&site.relay, TestServer::named("hidden.example", 2));
    site.invite(TOKEN, Some(&b)).await;
    b.register(relay, &with_invite(hidden(relay, &b), TOKEN)).await.assert_ok();
    for _ in 0..3 {
        relay.clock.advance(HOUR * 24 * 5);
        b.register(relay, &hidden(relay, &b)).await.assert_ok();
    }
    relay.clock.advance(HOUR * 24 * 8);
    let late = b.collect_raw(relay, &collect_all(relay)).await;
    late.assert_refused(503, "M_UNKNOWN");
}

#[tokio::test]
async fn requests_to_leave_must_be_signed_and_say_what_becomes_of_the_mail() {
    let site = Site::start("").await;
    let b = TestServer::new(2);
    let body = Bytes::from_static(b"{\"mail\":\"burn\",\"signed_at\":1}");
    let answer =
        b.call(&site.relay, Method::DELETE, MAILBOX, std::str::from_utf8(&body).unwrap()).await;
    answer.assert_refused(400, "M_BAD_JSON");
    site.relay.plain(Method::PUT, MAILBOX, "{}").await.assert_refused(401, "M_UNAUTHORIZED");
}
