//! What the door lets through, and what it keeps.

use http::Method;
use tower::ServiceExt;

use super::*;
use crate::inbox::Inbox;
use crate::test_inbound::{GAP_WAIT, InboundSite, Letter, Manner, ROOM, Writer, status_when};
use crate::test_site::{OWN_NAME, name};

async fn site() -> InboundSite {
    let site = InboundSite::new(&[]).await;
    site.homeserver.joins(ROOM, "$start");
    site
}

async fn send(site: &InboundSite, inbox: &Inbox, letter: &Letter) -> StatusCode {
    call(site, inbox, request_with(letter, letter.authorization())).await.status()
}

fn request_with(letter: &Letter, authorization: String) -> Request {
    http::Request::builder()
        .method(Method::PUT)
        .uri(format!("{SEND}{}", letter.envelope.txn_id))
        .header(header::AUTHORIZATION, authorization)
        .header("x-restante-waybill", letter.waybill_header())
        .header(header::CONTENT_TYPE, "application/json")
        .body(AxumBody::from(letter.envelope.content.clone()))
        .unwrap()
}

fn settings() -> DoorSettings {
    let destination = DestinationRule::Optional;
    DoorSettings { front: Front::Tls, paths: default_paths(), destination }
}

async fn call(site: &InboundSite, inbox: &Inbox, request: Request) -> Response {
    call_door(site, inbox, settings(), request).await
}

async fn call_door(
    site: &InboundSite,
    inbox: &Inbox,
    settings: DoorSettings,
    request: Request,
) -> Response {
    let router = router(site.node.site.clone(), settings, inbox.clone());
    router.oneshot(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn direct_mail_goes_straight_through_when_nothing_waits() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.run_with(async |inbox| {
        assert_eq!(send(&site, &inbox, &writer.message(ROOM)).await, StatusCode::OK);
        assert_eq!(site.homeserver.transactions(), ["t1"]);
        assert!(inbox.status().await.unwrap().waiting.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn direct_mail_does_not_overtake_what_lies_at_a_relay() {
    let site = InboundSite::new(&["relay.test"]).await;
    site.homeserver.joins(ROOM, "$start");
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.relays.set("relay.test", Manner::Refuses);
    let letters: Vec<Letter> = (0..3).map(|_| writer.edu()).collect();
    site.relays.hold("relay.test", &letters[1]);
    site.run_with(async |inbox| {
        assert_eq!(send(&site, &inbox, &letters[0]).await, StatusCode::OK);
        assert_eq!(send(&site, &inbox, &letters[2]).await, StatusCode::OK);
        assert_eq!(site.homeserver.transactions(), ["t1"]);
        site.relays.set("relay.test", Manner::Honest);
        status_when(&inbox, |status| status.confirmed_total == 2).await;
        assert_eq!(site.homeserver.transactions(), ["t1", "t2", "t3"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn direct_mail_of_a_stream_that_is_met_for_the_first_time_does_not_overtake_it_either() {
    let site = InboundSite::new(&["relay.test"]).await;
    site.homeserver.joins(ROOM, "$start");
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.relays.set("relay.test", Manner::Refuses);
    let letters: Vec<Letter> = (0..2).map(|_| writer.edu()).collect();
    site.relays.hold("relay.test", &letters[0]);
    site.run_with(async |inbox| {
        assert_eq!(send(&site, &inbox, &letters[1]).await, StatusCode::OK);
        site.relays.set("relay.test", Manner::Honest);
        status_when(&inbox, |status| status.confirmed_total == 2).await;
        assert_eq!(site.homeserver.transactions(), ["t1", "t2"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn direct_mail_waits_in_the_inbox_while_the_homeserver_is_down_and_behind_what_waits() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.is_down(true);
    site.run_with(async |inbox| {
        assert_eq!(send(&site, &inbox, &writer.message(ROOM)).await, StatusCode::OK);
        status_when(&inbox, |status| status.waiting.first().is_some_and(|m| m.reason.is_some()))
            .await;
        site.homeserver.is_down(false);
        assert_eq!(send(&site, &inbox, &writer.message(ROOM)).await, StatusCode::OK);
        status_when(&inbox, |status| status.confirmed_total == 2).await;
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert_eq!(site.homeserver.transactions(), ["t1", "t2"]);
}

#[tokio::test(start_paused = true)]
async fn direct_mail_that_follows_what_the_homeserver_dropped_is_delivered_after_it() {
    let site = site().await;
    let (mut writer, mut another) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&writer).await;
    site.knows(&another).await;
    let (first, second) = (writer.message(ROOM), writer.message(ROOM));
    site.homeserver.is_down(true);
    site.homeserver.drops(&writer.written[0], 1);
    site.run_with(async |inbox| {
        assert_eq!(send(&site, &inbox, &first).await, StatusCode::OK);
        site.homeserver.is_down(false);
        status_when(&inbox, |_| !site.homeserver.transactions().is_empty()).await;
        assert_eq!(send(&site, &inbox, &another.edu()).await, StatusCode::OK);
        assert_eq!(site.homeserver.edus(), 1, "what is not of that room goes straight through");

        assert_eq!(send(&site, &inbox, &second).await, StatusCode::OK);

        status_when(&inbox, |_| site.homeserver.stored(ROOM).len() == 2).await;
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn what_went_straight_and_was_dropped_is_delivered_when_a_relays_copy_of_it_comes() {
    let site = InboundSite::new(&["relay.test"]).await;
    site.homeserver.joins(ROOM, "$start");
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let edu = serde_json::json!({"edu_type": "m.typing", "content": {}});
    let draft = writer.draft(ROOM);
    let letter = writer.letter(&[draft], &[edu]);
    site.homeserver.drops(&writer.written[0], 1);
    site.run_with(async |inbox| {
        assert_eq!(send(&site, &inbox, &letter).await, StatusCode::OK);
        site.relays.hold("relay.test", &letter);
        status_when(&inbox, |_| site.homeserver.stored(ROOM).len() == 1).await;
        site.relays.hold("relay.test", &letter);
        status_when(&inbox, |status| status.confirmed_total == 1 && status.backlog.is_empty())
            .await;
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert_eq!(site.homeserver.transactions(), ["t1"], "it is not sent in its origin's name again");
    assert_eq!((site.homeserver.edus(), site.homeserver.own_transactions()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn direct_mail_whose_key_cannot_be_had_goes_straight_through_though_a_number_is_missing() {
    let site = site().await;
    let mut stranger = Writer::new("b.test");
    let (_, second) = (stranger.edu(), stranger.edu());
    site.run_with(async |inbox| {
        assert_eq!(send(&site, &inbox, &second).await, StatusCode::OK);
        assert_eq!(site.homeserver.transactions(), ["t2"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn mail_that_is_not_its_origins_is_not_kept() {
    let site = site().await;
    let writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.is_down(true);
    site.run_with(async |inbox| {
        let forged = Writer::impostor("b.test").message(ROOM);
        assert_eq!(send(&site, &inbox, &forged).await, StatusCode::UNAUTHORIZED);
        assert!(inbox.status().await.unwrap().waiting.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_node_verifies_itself_may_have_to_name_its_destination() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.is_down(true);
    let edu = serde_json::json!({ "edu_type": "org.restante.delivery_receipt", "content": {} });
    let letters = [writer.message(ROOM), writer.letter(&[], &[edu])];
    site.run_with(async |inbox| {
        for (kept, letter) in letters.into_iter().enumerate() {
            let required = || DoorSettings { destination: DestinationRule::Required, ..settings() };
            let unnamed =
                || request_with(&letter, writer.authorization_without_destination(&letter));
            let refused = call_door(&site, &inbox, required(), unnamed()).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(inbox.status().await.unwrap().waiting.len(), kept);
            let named = request_with(&letter, letter.authorization());
            let taken = call_door(&site, &inbox, required(), named).await;
            assert_eq!(taken.status(), StatusCode::OK);
            assert_eq!(call(&site, &inbox, unnamed()).await.status(), StatusCode::OK);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_number_that_went_straight_through_is_not_waited_for() {
    let site = InboundSite::new(&["relay.test"]).await;
    site.homeserver.joins(ROOM, "$start");
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let (first, second) = (writer.message(ROOM), writer.message(ROOM));
    site.run_with(async |inbox| {
        assert_eq!(send(&site, &inbox, &first).await, StatusCode::OK);
        // The relay has a copy of the first as well, whose events are looked for.
        site.relays.hold("relay.test", &first);
        site.relays.hold("relay.test", &second);
        status_when(&inbox, |status| status.confirmed_total == 2).await;
    })
    .await;
    assert_eq!(site.homeserver.transactions(), ["t1", "t2"]);
}

#[tokio::test(start_paused = true)]
async fn direct_mail_in_a_servers_name_does_not_hold_up_what_was_relayed() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut impostor) = (Writer::new("b.test"), Writer::impostor("b.test"));
    site.knows(&writer).await;
    let forged = impostor.edu();
    site.homeserver.is_mute_once();
    site.run_with(async |inbox| {
        let relayed = async {
            site.homeserver.has_gone_mute().await;
            site.hold(&[writer.message(ROOM)]);
            let began = tokio::time::Instant::now();
            status_when(&inbox, |status| status.confirmed_total == 1).await;
            assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
        };
        tokio::select! {
            biased;
            _ = send(&site, &inbox, &forged) => panic!("the homeserver is mute"),
            () = relayed => {}
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn everything_else_goes_through_and_is_an_error_while_the_homeserver_is_down() {
    let site = site().await;
    let inbox = Inbox::open(site.node.site.clone(), GAP_WAIT).await.unwrap();
    let request = || Request::get("/_matrix/client/v3/x%2Fy?z").body(AxumBody::empty()).unwrap();
    assert_eq!(call(&site, &inbox, request()).await.status(), StatusCode::OK);
    assert_eq!(site.homeserver.passed(), ["/_matrix/client/v3/x%2Fy?z"]);
    site.homeserver.is_down(true);
    assert_eq!(call(&site, &inbox, request()).await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn what_the_homeserver_serves_for_its_operator_is_not_passed() {
    let site = site().await;
    let inbox = Inbox::open(site.node.site.clone(), GAP_WAIT).await.unwrap();
    for path in ["/_synapse/admin/v1/users", "/_matrix/../_synapse/admin/v1/users", "/"] {
        let request = Request::get(path).body(AxumBody::empty()).unwrap();
        let answer = call(&site, &inbox, request).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let body = restante_federation::collect_limited(answer.into_body(), 65536).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains("M_UNRECOGNIZED"), "{path}");
    }
    assert!(site.homeserver.passed().is_empty());
    let request = Request::get("/.well-known/matrix/server").body(AxumBody::empty()).unwrap();
    assert_eq!(call(&site, &inbox, request).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_own_keys_are_the_nodes_document() {
    let site = site().await;
    let inbox = Inbox::open(site.node.site.clone(), GAP_WAIT).await.unwrap();
    let request = Request::get(KEY_SERVER).body(AxumBody::empty()).unwrap();
    let answer = call(&site, &inbox, request).await;
    let body = restante_federation::collect_limited(answer.into_body(), 65536).await.unwrap();
    let document = restante_federation_proto::KeyDocument::parse(body).unwrap();
    assert_eq!(document.server_name(), site.node.site.server_name());
}

#[tokio::test(start_paused = true)]
async fn slow_strangers_do_not_keep_small_transactions_out() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let inbox = Inbox::open(site.node.site.clone(), GAP_WAIT).await.unwrap();
    let router = router(site.node.site.clone(), settings(), inbox);
    let ask = |body: AxumBody, letter: &Letter| {
        let request = http::Request::builder()
            .method(Method::PUT)
            .uri(format!("{SEND}{}", letter.envelope.txn_id))
            .header(header::AUTHORIZATION, letter.authorization())
            .body(body)
            .unwrap();
        router.clone().oneshot(request)
    };
    let letter = writer.message(ROOM);
    type Piece = Result<bytes::Bytes, std::io::Error>;
    let never = || AxumBody::from_stream(futures_util::stream::pending::<Piece>());
    let slow =
        futures_util::future::join_all((0..turns::LARGE_AT_ONCE).map(|_| ask(never(), &letter)));
    tokio::select! {
        biased;
        _ = slow => panic!("the small transaction waited for the slow ones"),
        answer = ask(letter.envelope.content.clone().into(), &letter) => {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_may_see_our_relay_record_and_nobody_elses() {
    let site = site().await;
    site.run_with(async |inbox| {
        let ask = async |target: &str| {
            let request = Request::get(target).body(AxumBody::empty()).unwrap();
            let answer = call(&site, &inbox, request).await;
            let status = answer.status().as_u16();
            (status, axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap())
        };
        let own = format!("{RELAYS}{OWN_NAME}");
        assert_eq!((ask(RECORD_FILE).await.0, ask(&own).await.0), (404, 404));

        let book = &site.node.site.relays;
        book.add(name(OWN_NAME), name("ours.test").into()).await.unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let publishing = crate::own_record::publish::run(site.node.site.clone(), stop.clone());
        let looking = async {
            while site.node.site.own_record.published().is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            stop.cancel();
        };
        tokio::join!(publishing, looking);
        let published = site.node.site.own_record.published().unwrap();
        assert_eq!(ask(RECORD_FILE).await, (200, published.clone()));
        assert_eq!(ask(&own).await, (200, published));
        assert_eq!(ask(&format!("{RELAYS}b.test")).await.0, 404);
        assert_eq!(ask(&format!("{RELAYS}no%20name")).await.0, 404);
    })
    .await;
    assert!(site.homeserver.passed().is_empty(), "the homeserver knows of none");
}

#[tokio::test(start_paused = true)]
async fn receipts_are_the_nodes_own_and_count_with_a_believed_signature_alone() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    let edu = serde_json::json!({ "edu_type": "org.restante.delivery_receipt", "content": {} });
    let (receipt, mixed) = (
        writer.letter(&[], std::slice::from_ref(&edu)),
        writer.letter(&[], &[edu.clone(), serde_json::json!({})]),
    );
    site.run_with(async |inbox| {
        let unknown = send(&site, &inbox, &receipt).await;
        assert!(unknown.is_client_error() || unknown.is_server_error(), "{unknown}");
        site.knows(&writer).await;
        let forged = send(&site, &inbox, &Writer::impostor("b.test").letter(&[], &[edu])).await;
        assert!(forged.is_client_error(), "{forged}");
        assert_eq!(send(&site, &inbox, &receipt).await, StatusCode::OK);
        assert_eq!(site.homeserver.transactions(), Vec::<String>::new());
        send(&site, &inbox, &mixed).await;
        status_when(&inbox, |_| !site.homeserver.transactions().is_empty()).await;
    })
    .await;
}
